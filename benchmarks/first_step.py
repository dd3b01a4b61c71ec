"""Time from the start of `distlstm train` to its first training step.

    python -m benchmarks.first_step [DATA]

DATA has the columns text and label; the default is 30,000 artificial rows of 40 words. Prints one
JSON line: the seconds of each part as `--debug` shows them, with one worker and with two, as
medians of 3 runs. Each run is interrupted after its first step.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS, WORDS_PER_ROW, VOCABULARY, RUNS = 30_000, 40, 20_000, 3
TITLE, LAST = "To the first step", "in all"


def write_rows(path: Path) -> None:
    """Write rows of words by Zipf's law, with random labels."""
    rng = np.random.default_rng(0)
    ranks = (VOCABULARY ** rng.random((ROWS, WORDS_PER_ROW))).astype(int)
    texts = [" ".join(f"w{rank}" for rank in row) for row in ranks]
    labels = [f"label {label}" for label in rng.integers(0, 4, ROWS)]
    pq.write_table(pa.table({"text": texts, "label": labels}), path)


def seconds_of(data: Path, output: Path, num_workers: int) -> dict[str, float]:
    """Run the command until it prints the table, then interrupt it."""
    command = [sys.executable, "-m", "distlstm", "train", str(data), "--output", str(output)]
    with subprocess.Popen(
        [*command, "--workers", str(num_workers), "--debug"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        seconds = dict(table(process.stderr or ()))
        process.send_signal(signal.SIGINT)
        process.communicate()
    if LAST not in seconds:
        raise SystemExit("The command ended before its first step.")
    return seconds


def table(lines: Iterator[str] | tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """The parts and their seconds, from the output of the command."""
    shown = False
    for line in lines:
        shown = shown or TITLE in line
        part, _, figure = line.strip().rpartition(" ")
        if shown and figure.replace(".", "").isdigit():
            yield part.strip(), float(figure)
            if part.strip() == LAST:
                return


def main() -> None:
    """Measure one worker and two."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        data = Path(sys.argv[1]) if len(sys.argv) > 1 else directory / "rows.parquet"
        if len(sys.argv) == 1:
            write_rows(data)
        figures: dict[str, dict[str, float]] = {}
        for num_workers in (1, 2):
            runs = [
                seconds_of(data, directory / f"{num_workers}-{run}", num_workers)
                for run in range(RUNS)
            ]
            figures[f"{num_workers} workers"] = {
                part: round(median(run[part] for run in runs), 1) for part in runs[0]
            }
    load = [round(value, 1) for value in os.getloadavg()]
    print(json.dumps({"benchmark": "time to the first step", **figures, "load": load}))


if __name__ == "__main__":
    main()
