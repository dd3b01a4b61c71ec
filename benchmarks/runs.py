"""How long a directory of many runs takes to be listed, and its index to be written.

    python -m benchmarks.runs [RUNS]

Prints a JSON line. The ratio is that of listing to reading and parsing the records alone: what is
looked at besides. Seconds are of processor time, which other processes do not change.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import distlstm
from tests.report import directories

_MAKERS: list[Callable[[Path], Path]] = [
    directories.model,
    directories.study,
    directories.evaluation,
    directories.predictions,
    directories.language_model,
]
_RECORDS = ("study.json", "model.json", "metrics.json", "_manifest.json")


def main(num_runs: int = 100) -> None:
    """Make the runs, then measure."""
    with tempfile.TemporaryDirectory() as name:
        for i in range(num_runs):
            _MAKERS[i % len(_MAKERS)](Path(name) / f"team-{i % 3}/run-{i:05d}")
        distlstm.write_report(name)  # imports
        records = [file for file in Path(name).rglob("*.json") if file.name in _RECORDS]
        reading = _seconds(lambda: [json.loads(file.read_bytes()) for file in records])
        listing = _seconds(lambda: distlstm.runs(name))
        writing = _seconds(lambda: distlstm.write_report(name))
    figures = {
        "runs": num_runs,
        "list_cpu_seconds": round(listing, 3),
        "index_cpu_seconds": round(writing, 3),
        "list_over_reading": round(listing / reading, 1),
        "index_over_list": round(writing / listing, 1),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
