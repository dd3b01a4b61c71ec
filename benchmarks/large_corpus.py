"""Memory of `train` on artificial corpora of different sizes, up to the first steps.

    python -m benchmarks.large_corpus [--whole] [ROWS...]

Rows have eight words by Zipf's law, one of which determines the label; there are 20 files. The
command is interrupted after its first 200 steps; with `--whole` it trains one epoch to its end and
writes its model. Prints one JSON line per size: rows, seconds of the encoding, and peaks of memory:
- of all processes of the command together (proportional set size, which counts shared pages once),
  while it encodes, while it trains, and from the end of the epoch on;
- of one training worker (resident);
- of the linear model, fitted in a separate process; with `--whole`, the result of `train` instead.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

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
from distlstm.stages.training.baseline import linear_model
from distlstm.storage import LocalStorage
linear_model(EncodedCorpus(LocalStorage(Path(sys.argv[1]))))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def write_corpus(directory: Path, num_rows: int) -> None:
    """Write files with the columns `text` and `label`."""
    directory.mkdir(parents=True)
    words = pa.array([f"w{i:x}" for i in range(VOCABULARY)])
    for index in range(FILES):
        rng = np.random.default_rng((num_rows, index))
        pq.write_table(
            made_up_rows(words, num_rows // FILES, rng), directory / f"{index:02d}.parquet"
        )


def made_up_rows(words: pa.Array, num_rows: int, rng: np.random.Generator) -> pa.Table:
    """Rows of words by Zipf's law, and one word that only rows of the label have."""
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
    """Of all processes, by activity."""
    worker: float = 0.0

    def look(self, mark: str, doing: str) -> None:
        """Update the peaks from the processes that have a mark in their environment."""
        seen = memory_of(mark, worker="ray::RayTrainWorker")
        self.worker = max(self.worker, seen.worker)
        self.together[doing] = max(self.together.get(doing, 0.0), seen.together)


@dataclass
class Reader:
    """What the command prints, read by a thread."""

    source: IO[str]
    lines: list[str] = field(default_factory=list)

    def read(self) -> None:
        """Read to the end."""
        self.lines += self.source

    def progress(self, output: Path) -> tuple[str, int]:
        """The current activity, and the number of steps done in the first epoch."""
        if not any((output / "checkpoints").glob("corpus-*/corpus.json")):
            return "encoding", 0
        last = self.lines[-1] if self.lines else ""
        steps = re.match(r"epoch 1 of up to 1: ([\d,]+) of", last)
        if steps is None and "training loss" in last:
            return "finishing", 0
        return "training", int(steps[1].replace(",", "")) if steps else 0


def measure(data: Path, output: Path, *, whole: bool) -> tuple[Peaks, float, dict[str, Any]]:
    """Run the command to its first steps, or to its end.

    Returns the peaks, the seconds until the corpus was encoded, and the result, if it ended.
    """
    mark, peaks, began = f"{MARK}={output}", Peaks(), time.monotonic()
    command = [sys.executable, "-m", "distlstm", "train", str(data), "--output", str(output)]
    one_epoch = ["--set", "training.min_epochs=1", "--set", "training.max_epochs=1"]
    process = subprocess.Popen(
        [*command, "--workers", str(WORKERS), "--json", *one_epoch],
        env={**os.environ, MARK: str(output)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    reader = Reader(process.stderr)
    thread = threading.Thread(target=reader.read)
    thread.start()
    encoding, steps = 0.0, 0
    while process.poll() is None and (whole or steps < STEPS):
        doing, steps = reader.progress(output)
        if doing != "encoding" and not encoding:
            encoding = time.monotonic() - began
        peaks.look(mark, doing)
        time.sleep(0.3)
    if not whole:
        process.send_signal(signal.SIGINT)
    thread.join()
    out = process.stdout.read() if process.stdout else ""
    if process.wait() != (0 if whole else 130):
        raise SystemExit(f"The command ended early: {''.join(reader.lines)}")
    return peaks, encoding, json.loads(out) if whole else {}


def linear_peak(output: Path) -> float:
    """The peak, in MiB, of a process that fits the linear model of an encoded corpus."""
    (corpus,) = (output / "checkpoints").glob("corpus-*")
    command = [sys.executable, "-c", FIT_LINEAR, str(corpus)]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


def main() -> None:
    """Measure each size."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--whole", action="store_true", help="train one epoch to its end")
    options = parser.parse_args()
    for num_rows in options.rows:
        with tempfile.TemporaryDirectory() as temporary:
            data, output = Path(temporary) / "data", Path(temporary) / "model"
            write_corpus(data, num_rows)
            peaks, encoding, result = measure(data, output, whole=options.whole)
            figures: dict[str, Any] = {
                "benchmark": "memory of train",
                "rows": num_rows,
                "encoding_seconds": round(encoding),
                **{f"{doing}_peak_mib": round(peak) for doing, peak in peaks.together.items()},
                "worker_peak_mib": round(peaks.worker),
            }
            if options.whole:
                figures |= {"seconds": round(result["seconds"]), **result["metrics"]}
            else:
                figures["linear_model_peak_mib"] = round(linear_peak(output))
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
