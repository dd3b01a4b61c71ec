"""What the tests share: a quiet environment, one Ray, and small made-up corpora."""

from collections.abc import Iterator
from pathlib import Path

from distlstm import environment

environment.prepare()

import pyarrow as pa  # noqa: E402 (Ray reads the environment when it is imported)
import pyarrow.parquet as pq  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from distlstm.stages.run.session import Resources, shared_ray  # noqa: E402

settings.register_profile("tests", deadline=None, derandomize=True)  # the same on any machine
settings.load_profile("tests")

WORDS = {
    "sport": ["match", "goal", "team", "player", "league", "coach"],
    "money": ["bank", "market", "price", "share", "profit", "loan"],
    "天气": ["今天", "下雨", "晴朗", "温度", "大风", "阴天"],
}


def labelled_rows(num_rows: int) -> dict[str, list[str]]:
    """Rows whose label follows from their words; sorted by label, as users' files often are."""
    labels = sorted(WORDS)
    rows = [(labels[i * len(labels) // num_rows], i) for i in range(num_rows)]
    texts = [
        " ".join(WORDS[label][(i * 7 + k * k) % 6] for k in range(3 + i % 9)) + f" number {i}"
        for label, i in rows
    ]
    return {"text": texts, "label": [label for label, _ in rows]}


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One embedded Ray for all tests that need one."""
    with shared_ray(Resources()):
        yield


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of 600 labelled rows in three classes, one of them Chinese."""
    path = tmp_path_factory.mktemp("corpus") / "train.parquet"
    pq.write_table(pa.table(labelled_rows(600)), path)
    return path
