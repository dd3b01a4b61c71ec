"""How the costs of a run grow with files, parts, labels, workers, nodes and rows.

Measures each cost at two sizes with the functions of the package, prints its growth, and
extrapolates it to billions of rows and a thousand workers. Prints tables and one JSON line.
docs/SCALING.md explains the figures.
"""

import json
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.cluster_utils import Cluster

from benchmarks.finished_outputs import (
    LIMIT,
    PARTS,
    ROW_BYTES,
    UNITS_PER_FILE,
    Outputs,
    write_files,
)
from benchmarks.growth import Growth, Work, growth
from benchmarks.prediction import random_model
from distlstm import environment
from distlstm.config import ModelConfig, TrainingConfig
from distlstm.data.batching import plan_epoch, step_limits
from distlstm.data.files import find_files
from distlstm.data.shards import Shards, write_shard
from distlstm.data.units import _FOOTERS_AT_ONCE, UNIT, Unit, cut_into_units
from distlstm.model.batch import used_ids
from distlstm.model.classifier import Classifier
from distlstm.stages.prediction.actor_pool import Done, _Bundle, _Pool
from distlstm.stages.prediction.footers import STORED_FOOTERS_AT_ONCE
from distlstm.stages.run.nodes import nodes
from distlstm.stages.run.waiting import Waiting
from distlstm.storage import LocalStorage
from distlstm.text.tokenizer import TokenIds

FILE_BYTES, TOKENS_PER_ROW = UNITS_PER_FILE * UNIT.num_bytes, 47
"""Of the rows that are extrapolated: as if not compressed, so that there are many files."""
ROWS, WORKERS = (10**9, 10**10, 10**11), (10, 100, 1_000)
ROWS_PER_SECOND = 4_500
"""Of one worker with one core, without a cascade: see NOTES.md."""
STORE_SECONDS = 0.03
"""Assumed time of a request to an object store."""

FILES, CUT_FILES, TRAINING_ROWS = (2_000, 8_000), (200, 800), (500_000, 2_000_000)
BUNDLES, NODES, LOOKS = 2_000, (1, 5), 100


def listing(directory: Path) -> Growth:
    """The cost of a file until it is found."""

    def prepare(count: int) -> Work:
        write_files(directory / f"list-{count}", count)
        return lambda: find_files([str(directory / f"list-{count}" / "input")])

    return growth(prepare, FILES)


def cutting(directory: Path) -> Growth:
    """The cost of a file until it is cut into units; its footer is read."""

    def prepare(count: int) -> Work:
        write_files(directory / f"cut-{count}", count)
        files = find_files([str(directory / f"cut-{count}" / "input")])
        return lambda: cut_into_units(files, LIMIT)

    return growth(prepare, CUT_FILES)


class ManyWorkers:
    """One process that answers as many workers would, without their work."""

    async def node(self) -> str:
        """The id of its node."""
        return str(ray.get_runtime_context().get_node_id())

    async def work(self, units: list[Unit]) -> list[Unit]:
        """No work."""
        return units

    async def progress(self) -> float:
        """Progress on no work."""
        return 0.0


def seconds_per_bundle(workers: int, unit: Unit) -> float:
    """Processor time of the command's process for a bundle, with so many workers that wait."""
    actor = ray.remote(num_cpus=0, max_concurrency=2 * workers)(ManyWorkers).remote()
    pool: _Pool[list[Unit]] = _Pool(
        start=lambda: actor,
        most=workers,
        needs="",
        waiting=deque(_Bundle([unit]) for _ in range(2 * workers + BUNDLES)),
        no_worker=Waiting(),
    )
    done = (news for news in pool.run() if isinstance(news, Done))
    for _ in islice(done, workers):
        started = time.process_time()
    for _ in islice(done, BUNDLES):
        ended = time.process_time()
    ray.kill(actor)
    return (ended - started) / BUNDLES


def seconds_of_look(_: int) -> float:
    """Time in which Ray answers which nodes there are; its own processes do most of the work."""
    started = time.perf_counter()
    nodes()
    return time.perf_counter() - started


def with_ray(unit: Unit) -> tuple[dict[int, float], dict[int, float]]:
    """Seconds per bundle, by number of workers, and seconds of a look at the nodes, by number."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    per_bundle = {workers: seconds_per_bundle(workers, unit) for workers in WORKERS}
    looks = {}
    for count in NODES:
        while len(nodes()) < count:
            cluster.add_node(num_cpus=1)
        looks[count] = min(map(seconds_of_look, range(LOOKS)))
    ray.shutdown()
    cluster.shutdown()
    return per_bundle, looks


def zipf_tokens(shape: tuple[int, ...], vocabulary: int = 100_000) -> np.ndarray:
    """Token ids by Zipf's law (int32)."""
    return (vocabulary ** np.random.default_rng(0).random(shape)).astype(np.int32)


def planning() -> Growth:
    """The cost of a training row in the plan of an epoch, which every worker makes."""

    def prepare(count: int) -> Work:
        lengths = np.random.default_rng(0).integers(1, 2 * TOKENS_PER_ROW, count, np.int32)
        limits = step_limits(TrainingConfig(), count)
        return lambda: plan_epoch(lengths, limits, seed=0, epoch=0)

    return growth(prepare, TRAINING_ROWS)


def opening(directory: Path) -> tuple[Growth, float]:
    """The cost of a training row when a worker opens the shards, and its bytes in a shard."""
    per_shard = UNIT.num_bytes // ROW_BYTES
    tokens = TokenIds(
        values=zipf_tokens((per_shard * TOKENS_PER_ROW,)),
        offsets=np.arange(per_shard + 1) * TOKENS_PER_ROW,
        truncated=np.zeros(per_shard, bool),
    )
    path = directory / "shard"
    write_shard(LocalStorage(directory), path.name, [tokens], [np.zeros(per_shard, np.int32)])
    cost = growth(lambda count: partial(Shards, [path] * (count // per_shard)), TRAINING_ROWS)
    return cost, path.stat().st_size / per_shard


def all_reduce_bytes(corpus_rows: int) -> int:
    """Size of the gradients that the workers exchange in each step of a default model."""
    model = Classifier(ModelConfig(), vocab_size=100_000, num_labels=8)
    rows = step_limits(TrainingConfig(), corpus_rows).rows
    used = used_ids(torch.from_numpy(zipf_tokens((rows, TOKENS_PER_ROW))))
    others = sum(p.numel() for p in model.parameters()) - model.embedding.weight.numel()
    return int(4 * (others + len(used) * model.embedding.weight.shape[1]))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that is measured."""

    costs: dict[str, Growth]
    """By name; those of a part end with the number of labels."""
    bytes_per_part: dict[int, dict[str, float]]
    seconds_per_message: dict[int, float]
    seconds_per_bundle: dict[int, float]
    seconds_per_look: dict[int, float]
    bytes_per_training_row: float
    bytes_per_all_reduce: int

    def seconds_per_look_at(self, count: int) -> float:
        """A look at so many nodes, if each costs as much as the last ones here."""
        (few, at_few), (many, at_many) = self.seconds_per_look.items()
        return at_few + (count - few) * (at_many - at_few) / (many - few)


def measure(directory: Path) -> Measured:
    """Measure everything on this machine."""
    texts = pa.array(["a text of some words", "and another text"] * 50)
    random_model(texts, directory / "model")
    outputs = [Outputs(directory, directory / "model", labels) for labels in PARTS]
    costs = {"find a file": listing(directory), "cut a file": cutting(directory)}
    for output in outputs:
        costs |= {f"{name}, {output.num_labels}": g for name, g in output.measured().items()}
    opened, bytes_per_row = opening(directory)
    per_bundle, looks = with_ray(outputs[0].some_unit)
    return Measured(
        costs=costs | {"plan an epoch": planning(), "open the shards": opened},
        bytes_per_part={output.num_labels: output.bytes_per_part() for output in outputs},
        seconds_per_message={o.num_labels: o.seconds_per_message() for o in outputs},
        seconds_per_bundle=per_bundle,
        seconds_per_look=looks,
        bytes_per_training_row=bytes_per_row,
        bytes_per_all_reduce=all_reduce_bytes(TRAINING_ROWS[1]),
    )


def extrapolated(found: Measured, rows: int) -> dict[str, float]:
    """The costs of so many rows, if they grow as they do here."""
    files, parts = rows * ROW_BYTES / FILE_BYTES, rows * ROW_BYTES / UNIT.num_bytes
    costs = found.costs
    table = {
        "files": files,
        "parts": parts,
        "find the files, s": files * costs["find a file"].seconds_each,
        "cut the files, s": files * costs["cut a file"].seconds_each,
        "cut the files in an object store, s": files * STORE_SECONDS / _FOOTERS_AT_ONCE,
        "read the ledger in an object store, s": parts * STORE_SECONDS / STORED_FOOTERS_AT_ONCE,
    }
    for labels in PARTS:
        manifest = found.bytes_per_part[labels]["manifest"]
        table |= {
            f"manifest, {labels} labels, GB": parts * manifest / 1e9,
            f"restart, {labels} labels, s": parts * costs[f"restart, {labels}"].seconds_each,
            f"command's memory, {labels} labels, GB": (
                files * costs["cut a file"].bytes_each
                + parts * costs[f"read the ledger, {labels}"].bytes_each
            )
            / 1e9,
            f"verify, {labels} labels, s": parts * costs[f"verify, {labels}"].seconds_each,
        }
    for workers in WORKERS:
        table[f"predict, {workers:,} workers, h"] = rows / ROWS_PER_SECOND / workers / 3600
    return table | {
        "training: shards that each node reads, GB": rows * found.bytes_per_training_row / 1e9,
        "training: open the shards, GB per worker": rows
        * costs["open the shards"].bytes_each
        / 1e9,
        "training: plan an epoch, GB per worker": rows * costs["plan an epoch"].bytes_each / 1e9,
        "training: plan an epoch, s": rows * costs["plan an epoch"].seconds_each,
    }


def of_workers(found: Measured, workers: int) -> dict[str, float]:
    """What so many workers cost the command and the network."""
    bundles_per_second = workers * ROWS_PER_SECOND * ROW_BYTES / UNIT.num_bytes
    per_bundle = found.seconds_per_bundle[workers]
    return {
        "bundles that end, per second": bundles_per_second,
        "command's processor time per bundle, ms": 1e3 * per_bundle,
        "bundles that a processor of the command serves, per second": 1 / per_bundle,
        "a look at as many nodes, ms": 1e3 * found.seconds_per_look_at(workers),
        "all-reduce, MB sent per worker and step": 2
        * (workers - 1)
        / workers
        * found.bytes_per_all_reduce
        / 1e6,
    }


def of_labels(found: Measured, num_labels: int) -> dict[str, float]:
    """What a part costs in a message to the command, and in the manifest."""
    return {
        "bytes of the message": found.bytes_per_part[num_labels]["message"],
        "unpickled, us": 1e6 * found.seconds_per_message[num_labels],
        "bytes in the manifest": found.bytes_per_part[num_labels]["manifest"],
    }


def print_table(title: str, names: Sequence[str], columns: Sequence[dict[str, float]]) -> None:
    """Print figures by name, a column for each size."""
    print(f"\n{title:60}" + "".join(f"{name:>14}" for name in names))
    for row in columns[0]:
        print(f"{row:60}" + "".join(f"{column[row]:>14,.4g}" for column in columns))


def main() -> None:
    """Measure, extrapolate, and print."""
    scratch = tempfile.TemporaryDirectory(prefix="scaling-")
    with environment.prepared(), scratch as directory:
        found = measure(Path(directory))
    print_table(
        "measured",
        ["exponent", "us each", "bytes each"],
        [
            {name: cost.exponent for name, cost in found.costs.items()},
            {name: 1e6 * cost.seconds_each for name, cost in found.costs.items()},
            {name: cost.bytes_each for name, cost in found.costs.items()},
        ],
    )
    by_rows = {f"{rows:.0e} rows": extrapolated(found, rows) for rows in ROWS}
    by_workers = {f"{workers:,} workers": of_workers(found, workers) for workers in WORKERS}
    by_labels = {f"{labels:,} labels": of_labels(found, labels) for labels in PARTS}
    print_table("a part", list(by_labels), list(by_labels.values()))
    print_table("extrapolated", list(by_rows), list(by_rows.values()))
    print_table("by workers", list(by_workers), list(by_workers.values()))
    figures = {"benchmark": "scaling", **asdict(found), **by_rows, **by_workers}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
