"""Memory of `train` on made-up corpora of different sizes, up to the first steps.

    python -m benchmarks.large_corpus [ROWS...]

Rows have eight words of a Zipf vocabulary, one of which tells the label; there are 20 files. The
command is interrupted after its first 200 steps: with rows this short an epoch would take hours.
Prints one JSON line: rows, seconds of the encoding, and the peaks of all processes of the command
together while it encodes and while it trains (proportional set size, which counts shared pages
once), of one training worker (resident), and of the linear model, fitted in a process of its own.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.process_memory import memory_of

ROWS, FILES, WORKERS, STEPS = (2_000_000, 20_000_000), 20, 1, 200
WORDS_PER_ROW, VOCABULARY, LABELS, WORDS_PER_LABEL = 8, 100_000, 4, 500
MARK = "DISTLSTM_BENCHMARK"
FIT_LINEAR = """
import resource, sys
from pathlib import Path
from distlstm.data.corpus import EncodedCorpus
from distlstm.stages.baseline import linear_model
linear_model(EncodedCorpus(Path(sys.argv[1])))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def write_corpus(directory: Path, num_rows: int) -> None:
    """Files of `text` and `label`."""
    directory.mkdir(parents=True)
    words = pa.array([f"w{i:x}" for i in range(VOCABULARY)])
    for index in range(FILES):
        rng = np.random.default_rng((num_rows, index))
        pq.write_table(
            made_up_rows(words, num_rows // FILES, rng), directory / f"{index:02d}.parquet"
        )


def made_up_rows(words: pa.Array, num_rows: int, rng: np.random.Generator) -> pa.Table:
    """Words by Zipf's law, then one that only rows of the label have."""
    labels = rng.integers(0, LABELS, num_rows)
    ranks = VOCABULARY ** rng.random((WORDS_PER_ROW - 1, num_rows), np.float32) - 1
    columns = [words.take(pa.array(column.astype(np.int32))) for column in ranks]
    telling = labels * WORDS_PER_LABEL + rng.integers(0, WORDS_PER_LABEL, num_rows)
    columns.append(pc.binary_join_element_wise("t", pc.cast(telling, pa.string()), ""))
    texts = pc.binary_join_element_wise(*columns, " ")
    names = pa.array([f"label {i}" for i in range(LABELS)])
    return pa.table({"text": texts, "label": names.take(pa.array(labels))})


@dataclass
class Peaks:
    """Peaks in MiB."""

    together: dict[str, float] = field(default_factory=dict)
    """Of all processes, by what is being done."""
    worker: float = 0.0

    def look(self, mark: str, doing: str) -> None:
        """Read the memory of the processes that carry a mark in their environment."""
        seen = memory_of(mark, worker="ray::RayTrainWorker")
        self.worker = max(self.worker, seen.worker)
        self.together[doing] = max(self.together.get(doing, 0.0), seen.together)


def steps_done(progress_file: Path) -> int:
    """Of the first epoch, so far."""
    if not progress_file.exists():
        return 0
    lines = map(json.loads, progress_file.read_text().splitlines())
    return max((line["step"][0] for line in lines if "step" in line), default=0)


def measure(data: Path, output: Path) -> tuple[Peaks, float]:
    """Run the command up to its first steps; also returns the seconds until it had encoded."""
    mark, peaks, began = f"{MARK}={output}", Peaks(), time.monotonic()
    command = [sys.executable, "-m", "distlstm", "train", str(data), "--output", str(output)]
    process = subprocess.Popen(
        [*command, "--workers", str(WORKERS), "--quiet"],
        env={**os.environ, MARK: str(output)},
        stderr=subprocess.PIPE,
    )
    checkpoints, encoding = output / "checkpoints", 0.0
    while process.poll() is None and steps_done(checkpoints / "progress.jsonl") < STEPS:
        encoded = any(checkpoints.glob("corpus-*/corpus.json"))
        if encoded and not encoding:
            encoding = time.monotonic() - began
        peaks.look(mark, "training" if encoded else "encoding")
        time.sleep(0.3)
    if process.poll() is not None:
        raise SystemExit(f"The command ended early: {process.communicate()[1].decode()}")
    process.send_signal(signal.SIGINT)
    process.communicate()
    return peaks, encoding


def linear_peak(output: Path) -> float:
    """MiB, of a process that fits the linear model of an encoded corpus."""
    (corpus,) = (output / "checkpoints").glob("corpus-*")
    command = [sys.executable, "-c", FIT_LINEAR, str(corpus)]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


def main() -> None:
    """Measure each size."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sizes = tuple(map(int, sys.argv[1:])) or ROWS
    for num_rows in sizes:
        with tempfile.TemporaryDirectory() as temporary:
            data, output = Path(temporary) / "data", Path(temporary) / "model"
            write_corpus(data, num_rows)
            peaks, encoding = measure(data, output)
            figures = {
                "benchmark": "memory of train",
                "rows": num_rows,
                "encoding_seconds": round(encoding),
                "encoding_peak_mib": round(peaks.together["encoding"]),
                "training_peak_mib": round(peaks.together["training"]),
                "worker_peak_mib": round(peaks.worker),
                "linear_model_peak_mib": round(linear_peak(output)),
            }
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
