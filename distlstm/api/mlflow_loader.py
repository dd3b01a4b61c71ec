"""Loads a MODEL for MLflow: `MLmodel` of a logged model names this module.

Nothing is unpickled, and a damaged or odd model is refused as everywhere.
"""

from typing import Any

from distlstm.api.model import Model, Texts, load_model


class LoadedModel:
    """What `mlflow.pyfunc.load_model` calls."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def predict(self, model_input: Texts, params: dict[str, Any] | None = None) -> Any:
        """A data frame with the columns that `Model.predict` gives.

        Args:
            model_input: a data frame with the column of texts that the model was trained on.
            params: arguments of `Model.predict`: `top_k`, `min_score`.
        """
        return self._model.predict(model_input, **(params or {})).to_pandas()

    def get_raw_model(self) -> Model:
        """The model as `distlstm.load_model` gives it."""
        return self._model


def _load_pyfunc(data_path: str) -> LoadedModel:
    """MLflow calls this with the directory `data` of the artifact."""
    return LoadedModel(load_model(data_path))
