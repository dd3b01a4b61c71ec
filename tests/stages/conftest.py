"""A model that the tests of the commands share."""

from pathlib import Path

import pytest

import distlstm
from distlstm.config import load_config
from tests.commands import TINY


@pytest.fixture(scope="session")
def model(ray_cluster: None, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, trained by two workers on the shared corpus.

    Without a cascade, so that runs last long enough to be broken off.
    """
    path = tmp_path_factory.mktemp("trained") / "model"
    settings = [*TINY[1::2], "training.max_epochs=8", "model.cascade=0"]
    distlstm.train(corpus_file, output=path, config=load_config(None, settings), workers=2)
    return path
