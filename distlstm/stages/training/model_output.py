"""The output of a training: `model.json` is written last, and has the identity of the command."""

from distlstm.model.metadata import METADATA_FILE, read_metadata
from distlstm.stages.run.files import HISTORY_FILE, MLFLOW_RUN_FILE, RUN_FILE
from distlstm.stages.run.output import Identity, Output, read_identity, record_identity
from distlstm.storage import WorkingCopy


def model_output(copy: WorkingCopy, identity: Identity) -> Output:
    """The directory of a classifier or of a language model."""
    path = copy.path

    def recorded() -> Identity | None:
        if (path / METADATA_FILE).exists():
            return dict(read_metadata(path).get("run", {}))
        return read_identity(path / RUN_FILE)

    return Output(
        storage=copy.storage,
        copy=copy,
        needed=(METADATA_FILE, HISTORY_FILE, RUN_FILE, MLFLOW_RUN_FILE),
        marks=(METADATA_FILE, RUN_FILE),
        identity=identity,
        recorded=recorded,
        is_finished=lambda: (path / METADATA_FILE).exists(),
        begin=lambda: record_identity(path / RUN_FILE, identity),
    )
