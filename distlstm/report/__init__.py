"""Static, self-contained HTML pages that read a directory and show what is in it."""
