"""Tests of distlstm.stages.prediction.actor_pool; those with dying workers are in test_faults."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from distlstm.data.files import SourceFile
from distlstm.data.units import Unit
from distlstm.model.directory import save_model
from distlstm.stages.prediction.actor_pool import Done, Looked, map_bundles
from distlstm.stages.run.session import Resources, ray_session
from distlstm.storage import LocalStorage
from distlstm.worker_range import WorkerRange
from tests.stages import small_model

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
NUM_BUNDLES, SECONDS = 40, 0.1


class Quick:
    """Work that ends before the pool would tire of waiting for it."""

    progress = "under way"

    def __init__(self, predictor: object) -> None:
        """The model is not needed."""

    def __call__(self, units: Sequence[Unit]) -> str:
        time.sleep(SECONDS)
        return units[0].file.path


def unit(name: str) -> Unit:
    file = SourceFile(path=name, relative=name, size=1, modified=0, format="csv", compression=None)
    return Unit(file=file)


def test_progress_is_reported_however_often_bundles_end(tmp_path: Path) -> None:
    save_model(small_model.model(), tmp_path / "model")
    names = [f"{i}.csv" for i in range(NUM_BUNDLES)]
    with ray_session(Resources(), lambda event: None) as capacity:
        news = list(
            map_bundles(
                Quick,
                [[unit(name)] for name in names],
                model=LocalStorage(tmp_path / "model"),
                workers=WorkerRange(1, 1),
                capacity=capacity,
            )
        )
    ends = [i for i, item in enumerate(news) if isinstance(item, Done)]
    assert sorted(news[i].result for i in ends) == sorted(names)
    between = [item for item in news[ends[0] : ends[-1]] if isinstance(item, Looked)]
    assert len(between) >= NUM_BUNDLES * SECONDS / 2
    assert any(item.of_bundles == ["under way"] for item in between)
