"""A model that the tests of the commands share."""

from pathlib import Path

import pytest

from distlstm.config import load_config
from distlstm.stages.run.session import Resources
from distlstm.stages.train import train
from distlstm.stages.training.labelled_data import DataRequest
from tests.commands import TINY


@pytest.fixture(scope="session")
def model(ray_cluster: None, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, trained by two workers on the shared corpus.

    Without a cascade, so that runs last long enough to be broken off.
    """
    path = tmp_path_factory.mktemp("trained") / "model"
    train(
        DataRequest(training=(str(corpus_file),)),
        output=path,
        config=load_config(None, [*TINY[1::2], "training.max_epochs=8", "model.cascade=0"]),
        resources=Resources(num_workers=2),
        overwrite=False,
        on_event=lambda event: None,
    )
    return path
