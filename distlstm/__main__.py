"""`python -m distlstm` is the same program as `distlstm`; Ray jobs start it this way."""

import signal
import sys

from distlstm import environment

try:
    from distlstm.cli import main
except ModuleNotFoundError as error:  # where the package was sent to a cluster
    sys.exit(
        f"Error: {sys.executable} lacks the package {error.name}, which distlstm requires. Run "
        "`pip install distlstm` there."
    )

if environment.is_submitted_job():
    # This is how a job is asked to stop. A cluster that a shell started in its background ignores
    # Ctrl-C, and so do all its processes, unless they ask for it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

main()
