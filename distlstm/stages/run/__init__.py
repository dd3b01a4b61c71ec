"""What every command needs: the connection to Ray, output directories, events and file names."""
