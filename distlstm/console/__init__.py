"""Progress and results in the terminal and in notebooks. Only these modules print."""
