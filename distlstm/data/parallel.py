"""Runs a function on many items, in this process or with Ray Data."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import ray.data

Item = TypeVar("Item")
Progress = Callable[[str, int, int], None]
"""Called with the name of the activity, the amount done, and the total."""


@dataclass(frozen=True)
class _Opaque:
    """An item that Ray Data does not take apart."""

    value: Any


def map_items(
    work: Callable[[Item], pa.Table],
    items: Sequence[Item],
    *,
    spread: bool,
    merge: Callable[[pa.Table], pa.Table] | None = None,
    merge_rows: int = 1_000_000,
) -> Iterator[pa.Table]:
    """Run `work` on every item; yield the tables in any order.

    With `spread`, Ray Data runs a task for each item; otherwise this process does all the work.
    With `merge`, the workers merge tables, about `merge_rows` rows at a time, before they send
    them. An error of `work` is raised as it is, or as the `cause` of Ray's error.
    """
    if not spread:
        yield from map(work, items)
        return
    ray.data.DataContext.get_current().raise_original_map_exception = True

    def run(batch: pa.Table) -> pa.Table:
        return work(batch["item"][0].as_py().value)

    dataset = ray.data.from_items(list(map(_Opaque, items)), override_num_blocks=len(items))
    results = dataset.map_batches(run, batch_size=1, batch_format="pyarrow")
    if merge is not None:
        results = results.map_batches(merge, batch_size=merge_rows, batch_format="pyarrow")
    yield from results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
