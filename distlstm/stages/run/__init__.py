"""What every command needs: the connection to Ray, outputs, events, and the names of files."""
