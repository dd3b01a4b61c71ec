"""The API's tests use the model of the commands' tests."""

from tests.stages.conftest import model

__all__ = ["model"]
