"""Reports: static, self-contained HTML pages about the content of a directory."""
