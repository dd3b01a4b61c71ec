"""`write_report`: the HTML report of a directory that another command wrote."""

from pathlib import Path

from distlstm.api.arguments import AnyPath, called
from distlstm.storage.location import on_disk


def write_report(path: AnyPath) -> Path:
    """(Re)write the report of a model, a study, an evaluation or a prediction output; its path.

    >>> distlstm.write_report("model").name
    'report.html'

    Raises:
        UserError: the directory is none of these, or damaged.
    """
    with called():
        from distlstm.report import kinds

        return kinds.write_report(on_disk(path))
