"""`python -m distlstm` is the same program as `distlstm`; Ray jobs start it this way."""

from distlstm.cli import main

main()
