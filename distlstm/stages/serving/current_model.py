"""The model that a replica applies: a newer one is loaded beside it, and takes its place."""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distlstm.errors import UserError
from distlstm.model.metadata import METADATA_FILE, load_metadata
from distlstm.stages.prediction.predictor import Predictor
from distlstm.stages.run.models import model_directory
from distlstm.stages.serving.settings import ServiceSettings

_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_BETWEEN_LOOKS_AT_A_STORE = 10.0


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready, and its `model.json`."""

    predictor: Predictor
    metadata: dict[str, Any]
    digest: bytes
    """Of the `model.json` that it was loaded from."""


class CurrentModel:
    """Follows a MODEL directory: when a training has replaced its model, loads the new one.

    A new model is used once all of it is loaded. If it cannot be loaded, the one before it stays;
    so it does while the directory is empty during a training.
    """

    def __init__(self, settings: ServiceSettings, *, on_load: Callable[[str], None]) -> None:
        """`on_load` is called with `ok` or `failed` after each attempt.

        Raises:
            UserError: there is no model, or it is damaged.
        """
        self._settings = settings
        self._on_load = on_load
        self.loaded = self._load()
        self._tried = self.loaded.digest
        on_load("ok")
        threading.Thread(target=self._follow, name="model", daemon=True).start()

    @property
    def predictor(self) -> Predictor:
        """Of the current model."""
        return self.loaded.predictor

    def look(self) -> None:
        """Load the model of the directory if it is another one."""
        digest = self._digest()
        if digest is None or digest == self._tried:
            return
        try:
            loaded = self._load()
        except Exception:  # of a damaged model; the thread that follows must go on
            if digest == self._digest():  # else it was replaced while it was being read
                self._tried = digest
                self._on_load("failed")
            return
        self.loaded, self._tried = loaded, loaded.digest
        self._on_load("ok")

    def _follow(self) -> None:
        is_local = self._settings.model.is_local
        while True:
            time.sleep(_SECONDS_BETWEEN_LOOKS if is_local else _SECONDS_BETWEEN_LOOKS_AT_A_STORE)
            self.look()

    def _digest(self) -> bytes | None:
        try:
            return hashlib.sha256(self._settings.model.read(METADATA_FILE)).digest()
        except (UserError, OSError):
            return None

    def _load(self) -> LoadedModel:
        digest = self._digest() or b""
        with model_directory(self._settings.model) as path:
            metadata = load_metadata(path)
            predictor = Predictor.load(
                path,
                metadata,
                num_threads=self._settings.num_threads,
                use_gpu=self._settings.use_gpu,
            )
        return LoadedModel(predictor, metadata, digest)
