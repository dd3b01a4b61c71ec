"""The speed of `verify` on an output of many parts.

Prints one JSON line: parts per second, for 5,000 parts with one input file each.
"""

import json
import statistics
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.data.files import find_files
from distlstm.data.units import UNIT, Unit
from distlstm.stages.prediction.footers import footer_of
from distlstm.stages.prediction.manifest import Run, write_manifest
from distlstm.stages.prediction.parts import (
    Part,
    Parts,
    PredictionSettings,
    Sums,
    part_name,
    plain,
    unit_key,
)
from distlstm.stages.run.files import SUCCESS_FILE
from distlstm.stages.verify import verify
from distlstm.storage import LocalStorage

PARTS, ROWS, RUNS = 5_000, 10, 3
SETTINGS = PredictionSettings(
    model="0" * 16, text_column="text", columns=None, top_k=None, min_score=None
)


def write_part(unit: Unit, output: Path) -> tuple[Part, Sums]:
    """Write a part as `batch-predict` does, with artificial predictions."""
    rows = pq.read_table(unit.file.path)
    rows = rows.append_column("predicted_label", pa.array(["label"] * ROWS))
    rows = rows.append_column("predicted_score", pa.array([0.5] * ROWS, pa.float32()))
    part = Part(
        name=part_name(unit),
        input=unit.file.path,
        unit=unit_key(unit),
        settings=plain(SETTINGS),
        rows_in=ROWS,
        rows_out=ROWS,
    )
    sums = Sums(label_counts=Counter({f"label {i}": ROWS for i in range(8)}))
    with pq.ParquetWriter(output / part.name, rows.schema, compression="zstd") as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata(footer_of(part, sums))
    return part, sums


def main() -> None:
    """Write the files once, and verify them several times."""
    with tempfile.TemporaryDirectory() as temporary:
        source, output = Path(temporary) / "in", Path(temporary) / "out"
        source.mkdir()
        output.mkdir()
        for i in range(PARTS):
            rows = pa.table({"text": [f"text {i} {j}" for j in range(ROWS)]})
            pq.write_table(rows, source / f"{i:05d}.parquet")
        parts = Parts()
        for file in find_files([str(source)]):
            parts.add(*write_part(Unit(file=file), output))
        write_manifest(LocalStorage(output), SETTINGS, parts, Run(inputs=(str(source),)), UNIT)
        (output / SUCCESS_FILE).touch()
        results = [verify(LocalStorage(output)) for _ in range(RUNS)]
    if any(result.faults for result in results):
        raise SystemExit(f"faults: {results[0].faults[:3]}")
    speed = statistics.median(result.parts / result.seconds for result in results)
    print(json.dumps({"benchmark": "verify", "parts": PARTS, "parts_per_second": round(speed)}))


if __name__ == "__main__":
    main()
