"""Running a function over many pieces of work, here or with Ray Data."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pyarrow as pa
import ray.data

Item = TypeVar("Item")
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def map_items(
    work: Callable[[Item], pa.Table],
    items: Sequence[Item],
    *,
    spread: bool,
    merge: Callable[[pa.Table], pa.Table] | None = None,
    merge_rows: int = 1_000_000,
) -> Iterator[pa.Table]:
    """Run `work` on every item; yields the tables as they come, in any order.

    With `spread` there is a task of Ray Data for each item; else this process does all. With
    `merge`, the workers join tables of `merge_rows` rows or more before they come here. What
    `work` raises comes out as it is, or as the `cause` of Ray's error.
    """
    if not spread:
        yield from map(work, items)
        return
    ray.data.DataContext.get_current().raise_original_map_exception = True

    def run(batch: pa.Table) -> pa.Table:
        return work(items[batch["item"][0].as_py()])

    dataset = ray.data.from_items(list(range(len(items))), override_num_blocks=len(items))
    results = dataset.map_batches(run, batch_size=1, batch_format="pyarrow")
    if merge is not None:
        results = results.map_batches(merge, batch_size=merge_rows, batch_format="pyarrow")
    yield from results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
