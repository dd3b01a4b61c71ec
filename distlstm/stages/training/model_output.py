"""The output of a training: `model.json` is written last, and has the identity of the command."""

from distlstm.model.metadata import METADATA_FILE, read_metadata
from distlstm.stages.run.files import CHECKPOINTS, HISTORY_FILE, MLFLOW_RUN_FILE
from distlstm.stages.run.output import Identity, Output, read_identity, record_identity
from distlstm.storage import WorkingCopy

_RUN_FILE = f"{CHECKPOINTS}/run.json"


def model_output(copy: WorkingCopy, identity: Identity) -> Output:
    """The directory of a classifier or of a language model."""
    path = copy.path

    def recorded() -> Identity | None:
        if (path / METADATA_FILE).exists():
            return dict(read_metadata(path).get("run", {}))
        return read_identity(path / _RUN_FILE)

    return Output(
        storage=copy.storage,
        copy=copy,
        needed=(METADATA_FILE, HISTORY_FILE, _RUN_FILE, MLFLOW_RUN_FILE),
        marks=(METADATA_FILE, _RUN_FILE),
        identity=identity,
        recorded=recorded,
        is_finished=lambda: (path / METADATA_FILE).exists(),
        begin=lambda: record_identity(path / _RUN_FILE, identity),
    )
