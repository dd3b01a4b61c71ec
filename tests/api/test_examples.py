"""The examples in the docstrings of the API, run in the order in which a user would."""

import doctest
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import distlstm
from tests.conftest import labelled_rows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
ORDER = [
    distlstm.train,
    distlstm.pretrain,
    distlstm.tune,
    distlstm.evaluate,
    distlstm.estimate,
    distlstm.batch_predict,
    distlstm.verify,
    distlstm.load_model,
    distlstm.Model.predict,
    distlstm.write_report,
    distlstm.runs,
    distlstm.plan_job,
]
ELSEWHERE = {"load_config", "submit", "jobs", "job", "job_log", "serve", "stop_job"}
"""One has no example; those of jobs need a cluster, and `tests/ray_jobs/test_jobs.py` runs them."""


@pytest.fixture(scope="module", autouse=True)
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with the files that the examples name."""
    path, before = tmp_path_factory.mktemp("examples"), Path.cwd()
    pq.write_table(pa.table(labelled_rows(600)), path / "train.parquet")
    pq.write_table(pa.table(labelled_rows(60)), path / "test.parquet")
    (path / "posts").mkdir()
    for name in ("a", "b"):
        pq.write_table(pa.table(labelled_rows(60)).select(["text"]), path / f"posts/{name}.parquet")
    os.chdir(path)
    yield path
    os.chdir(before)


@pytest.mark.parametrize("function", ORDER, ids=lambda f: f.__name__)
def test_the_example_of_a_function_gives_what_it_shows(function: object) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(
        function,
        name=function.__name__,
        globs={"distlstm": distlstm},  # type: ignore[attr-defined]
    )
    assert test.examples, "it has none"
    shown: list[str] = []
    outcome = doctest.DocTestRunner(verbose=False).run(test, out=shown.append)
    assert outcome.failed == 0, "".join(shown)


def test_every_public_function_has_an_example() -> None:
    functions = {
        name
        for name in distlstm.__all__
        if callable(getattr(distlstm, name)) and not isinstance(getattr(distlstm, name), type)
    }
    assert functions - ELSEWHERE <= {f.__name__ for f in ORDER}
