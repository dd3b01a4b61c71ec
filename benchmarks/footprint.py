"""Memory of `batch-predict` on a file and on one ten times as large, each of a single row group.

Prints one JSON line: for both files, the peak of a worker (resident) and the peak of all processes
of the command together (proportional set size, which counts shared pages once); and the ratios.
Rows have 200 bytes and are all distinct.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.prediction import random_model
from benchmarks.process_memory import memory_of

ROWS, FACTOR, WORKERS = 100_000, 10, 2
WORDS_PER_ROW, WORD_BYTES, VOCABULARY = 33, 5, 20_000
MARK = "DISTLSTM_BENCHMARK"


def write_rows(path: Path, num_rows: int) -> pa.Array:
    """Write a file of one row group; return its texts."""
    rng = np.random.default_rng(num_rows)
    words = np.array([f"{i:0{WORD_BYTES}x}" for i in range(VOCABULARY)])
    texts = [
        f"{i} " + " ".join(words[row])
        for i, row in enumerate(rng.integers(0, VOCABULARY, (num_rows, WORDS_PER_ROW)))
    ]
    table = pa.table({"text": texts})
    pq.write_table(table, path, row_group_size=num_rows)
    return table["text"].combine_chunks()


@dataclass
class Peaks:
    """Peaks in MiB."""

    worker: float = 0.0
    all_processes: float = 0.0

    def look(self, mark: str) -> None:
        """Update the peaks from the processes that have a mark in their environment."""
        seen = memory_of(mark, worker="ray::_Worker")
        self.worker = max(self.worker, seen.worker)
        self.all_processes = max(self.all_processes, seen.together)


def peaks_of(source: Path, model: Path, output: Path) -> Peaks:
    """Run the command, and read its memory five times a second."""
    peaks, ended = Peaks(), threading.Event()
    mark = f"{MARK}={output}"

    def watch() -> None:
        while not ended.wait(0.2):
            peaks.look(mark)

    watcher = threading.Thread(target=watch)
    watcher.start()
    command = [sys.executable, "-m", "distlstm", "batch-predict", str(source), "--quiet"]
    options = ["--model", str(model), "--output", str(output), "--workers", str(WORKERS)]
    environment = {**os.environ, MARK: str(output)}
    subprocess.run([*command, *options], check=True, capture_output=True, env=environment)
    ended.set()
    watcher.join()
    return peaks


def main() -> None:
    """Measure both files."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        texts = write_rows(directory / "small.parquet", ROWS)
        write_rows(directory / "large.parquet", FACTOR * ROWS)
        random_model(texts, directory / "model")
        small, large = (
            peaks_of(directory / f"{name}.parquet", directory / "model", directory / name)
            for name in ("small", "large")
        )
    figures = {
        "benchmark": "memory of batch-predict",
        "rows": [ROWS, FACTOR * ROWS],
        "worker_peak_mib": [round(small.worker), round(large.worker)],
        "all_processes_peak_mib": [round(small.all_processes), round(large.all_processes)],
        "worker_ratio": round(large.worker / small.worker, 3),
        "all_processes_ratio": round(large.all_processes / small.all_processes, 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
