"""`runs`: what commands have written below a directory."""

from typing import TYPE_CHECKING

from distlstm.api.arguments import AnyPath, called, directory_at

if TYPE_CHECKING:
    from distlstm.stages.listing.record import RunList


def runs(path: AnyPath) -> "RunList":
    """The models, studies, language models, evaluations and predictions below a directory.

    The result is a sequence of `RunRecord`, the newest first.

    >>> [(run.name, run.state) for run in distlstm.runs(".") if run.kind == "evaluation"]
    [('evaluation', 'finished')]

    Args:
        path: a directory, here or in an object store.

    Raises:
        UserError: there is no such directory, or it cannot be read.
    """
    with called():
        from distlstm.stages import runs as work

        return work.runs(directory_at(path))
