"""Spreading units over a pool of Ray Data actors, each with a model of its own."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.data

from distlstm.data.units import Unit
from distlstm.errors import UserError
from distlstm.stages.predictor import Predictor
from distlstm.stages.session import Capacity

Work = Callable[[Unit], dict[str, Any]]


def map_units(
    make_work: Callable[[Predictor], Work],
    units: Sequence[Unit],
    *,
    model: Path,
    num_workers: int,
    capacity: Capacity,
) -> Iterator[dict[str, Any]]:
    """Run `make_work(predictor)(unit)` on every unit; yields `{"unit": index, ...}` as they end.

    Each worker loads the model once. A unit that cannot be read gives `{"error": message}`; the
    others go on.
    """
    blocks = ray.data.from_items(list(range(len(units))), override_num_blocks=len(units))
    results = blocks.map_batches(
        _Worker,
        fn_constructor_args=(make_work, list(units), model, capacity),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=num_workers),
        num_cpus=capacity.cpus_per_worker,
        num_gpus=1 if capacity.use_gpu else None,
    )
    for table in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from (json.loads(text) for text in table["result"].to_pylist())


class _Worker:
    def __init__(
        self,
        make_work: Callable[[Predictor], Work],
        units: list[Unit],
        model: Path,
        capacity: Capacity,
    ) -> None:
        predictor = Predictor.load(
            model, num_threads=capacity.cpus_per_worker, use_gpu=capacity.use_gpu
        )
        self.work = make_work(predictor)
        self.units = units

    def __call__(self, batch: pa.Table) -> pa.Table:
        index = batch["item"][0].as_py()
        try:
            result = self.work(self.units[index])
        except UserError as error:
            result = {"error": str(error)}
        return pa.table({"result": [json.dumps({"unit": index, **result})]})
