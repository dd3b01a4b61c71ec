"""`write_report`: the HTML report of a directory that another command wrote."""

from pathlib import Path

from distlstm.api.arguments import AnyPath, called, directory_at
from distlstm.storage import is_object_uri


def write_report(path: AnyPath) -> Path | str:
    """(Re)write the report of a model, a study, an evaluation or a prediction output.

    Of a directory that has such outputs below it, the report is an index that compares them.
    Returns its path, or its URI in an object store.

    >>> distlstm.write_report("model").name
    'report.html'

    Raises:
        UserError: the directory is none of these, or damaged.
    """
    with called():
        from distlstm.report import kinds

        written = kinds.write_report(directory_at(path))
        return written if is_object_uri(written) else Path(written)
