"""Finished outputs of artificial parts, and what commands on them cost."""

import os
import pickle
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.growth import Growth, growth, seconds
from distlstm.data.files import find_files
from distlstm.data.units import Size, Unit, cut_into_units
from distlstm.model.metadata import load_metadata, model_fingerprint
from distlstm.stages.batch_predict import PredictRequest, batch_predict
from distlstm.stages.prediction.footers import footer_of
from distlstm.stages.prediction.ledger import read_ledger
from distlstm.stages.prediction.manifest import Run, read_manifest, write_manifest
from distlstm.stages.prediction.parts import (
    Part,
    Parts,
    PredictionSettings,
    Sums,
    part_name,
    plain,
    unit_key,
)
from distlstm.stages.run.files import MANIFEST_FILE, SUCCESS_FILE
from distlstm.stages.run.session import Resources
from distlstm.stages.verify import verify
from distlstm.storage import LocalStorage

ROW_BYTES, UNITS_PER_FILE = 300, 16
GROUP_ROWS, FILES_PER_DIRECTORY = 10, 100
LIMIT = Size(num_bytes=8 * 1024, num_rows=GROUP_ROWS)
"""A unit of the files here: a row group."""
PARTS = {3: (512, 2_048), 77: (512, 2_048), 5_000: (64, 256)}
"""By number of labels."""


def write_files(directory: Path, count: int) -> None:
    """Hard links to one file of as many row groups as a large file has units."""
    source = directory / "source"
    rng = random.Random(0)
    texts = [rng.randbytes(ROW_BYTES // 2).hex() for _ in range(UNITS_PER_FILE * GROUP_ROWS)]
    directory.mkdir(parents=True)
    pq.write_table(pa.table({"text": texts}), source, row_group_size=GROUP_ROWS)
    for i in range(count):
        path = directory / f"input/{i // FILES_PER_DIRECTORY:04d}/{i:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, path)


def make_part(unit: Unit, settings: PredictionSettings, num_labels: int) -> tuple[Part, Sums]:
    """What `batch-predict` would write about a part."""
    part = Part(
        name=part_name(unit),
        input=unit.file.path,
        unit=unit_key(unit),
        settings=plain(settings),
        rows_in=GROUP_ROWS,
        rows_out=GROUP_ROWS,
    )
    counts = Counter({f"label {i}": i + 1 for i in range(num_labels)})
    return part, Sums(label_counts=counts)


def write_part(part: Part, sums: Sums, output: Path) -> None:
    """Write a part as `batch-predict` does, with few columns."""
    rows = pa.table({"predicted_label": ["label 0"] * GROUP_ROWS})
    (output / part.name).parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(output / part.name, rows.schema, compression="zstd") as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata(footer_of(part, sums))


@dataclass
class Outputs:
    """Writes finished outputs of artificial parts, and measures what commands do with them."""

    directory: Path
    model: Path
    num_labels: int

    def __post_init__(self) -> None:
        self.settings = PredictionSettings(
            model=model_fingerprint(self.model, load_metadata(self.model)),
            text_column="text",
            columns=None,
            top_k=None,
            min_score=None,
        )
        self.units: dict[int, list[Unit]] = {}
        self.parts: dict[int, Parts] = {}
        for size in PARTS[self.num_labels]:
            self._write(size)

    def _write(self, size: int) -> None:
        root = self.root(size)
        write_files(root, size // UNITS_PER_FILE)
        self.units[size] = cut_into_units(find_files([str(root / "input")]), LIMIT)
        self.parts[size] = Parts()
        for unit in self.units[size]:
            part, sums = make_part(unit, self.settings, self.num_labels)
            write_part(part, sums, root / "output")
            self.parts[size].add(part, sums)
        self._write_manifest(size)
        (root / "output" / SUCCESS_FILE).touch()

    @property
    def some_unit(self) -> Unit:
        """A unit like all others."""
        return self.units[PARTS[self.num_labels][0]][0]

    def root(self, size: int) -> Path:
        """The directory of the input and the output of a size."""
        return self.directory / f"{self.num_labels}-{size}"

    def _write_manifest(self, size: int) -> None:
        run = Run(inputs=(str(self.root(size) / "input"),))
        write_manifest(self._output(size), self.settings, self.parts[size], run, LIMIT)

    def measured(self) -> dict[str, Growth]:
        """The costs of a part, by what they are paid for."""
        works: dict[str, Callable[[int], object]] = {
            "read the ledger": lambda size: read_ledger(self._output(size), self.units[size]),
            "write the manifest": self._write_manifest,
            "read the manifest": lambda size: read_manifest(self._output(size)),
            "restart": self._restart,
            "verify": self._verify,
        }
        sizes = PARTS[self.num_labels]
        return {
            name: growth(lambda size, work=work: partial(work, size), sizes)  # type: ignore[misc]
            for name, work in works.items()
        }

    def _output(self, size: int) -> LocalStorage:
        return LocalStorage(self.root(size) / "output")

    def _restart(self, size: int) -> None:
        result = batch_predict(
            PredictRequest(
                inputs=(str(self.root(size) / "input"),),
                model=LocalStorage(self.model),
                output=self._output(size),
                resources=Resources(),
            ),
            on_event=lambda _: None,
        )
        if result.parts_reused != size:
            raise SystemExit(f"A restart found {result.parts_reused} of {size} parts.")

    def _verify(self, size: int) -> None:
        result = verify(self._output(size))
        if result.faults:
            raise SystemExit(f"faults: {result.faults[:3]}")

    def bytes_per_part(self) -> dict[str, float]:
        """Size of a part's line in the manifest, and of the message about it to the command."""
        small, large = PARTS[self.num_labels]
        sizes = [len(self._output(size).read(MANIFEST_FILE)) for size in (small, large)]
        return {
            "manifest": (sizes[1] - sizes[0]) / (large - small),
            "message": len(pickle.dumps(self._one_part())),
        }

    def _one_part(self) -> Parts:
        """What a worker reports about a bundle of one unit."""
        parts = Parts()
        parts.add(*make_part(self.some_unit, self.settings, self.num_labels))
        return parts

    def seconds_per_message(self) -> float:
        """Time in which the command unpickles what a worker reports about a part."""
        message = pickle.dumps(self._one_part())
        return seconds(lambda: [pickle.loads(message) for _ in range(10)]) / 10
