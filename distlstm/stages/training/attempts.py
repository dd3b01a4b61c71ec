"""Repeats runs of Ray Train whose workers die, as long as the training gets on in between."""

from collections.abc import Callable

import ray.train

from distlstm.stages.run.session import our_error
from distlstm.stages.training.checkpoints import last_checkpoint
from distlstm.stages.training.out_of_memory import is_out_of_memory
from distlstm.stages.training.snapshot import mend_snapshot
from distlstm.storage import Directory


def fit_through_deaths(
    attempt: Callable[[], ray.train.Result],
    *,
    checkpoints: Directory,
    run: str,
    on_death: Callable[[BaseException], None] = lambda _: None,
) -> ray.train.Result:
    """Run Ray Train, again and again if need be; each run resumes from its last checkpoint.

    Ray Train itself gives up after a fixed number of deaths. Nodes may die as often as they do in
    a long training, if only there is a new checkpoint in between.

    Args:
        attempt: runs Ray Train once.
        checkpoints: storage of Ray Train.
        run: name of its directory there.
        on_death: called before another run.

    Raises:
        TrainingFailedError: there was no new checkpoint, the memory does not suffice, or the
            training itself has raised a UserError or RunError.
    """
    mend_snapshot(checkpoints.below(run))
    while True:
        before = last_checkpoint(checkpoints, run)
        try:
            return attempt()
        except ray.train.TrainingFailedError as error:
            mend_snapshot(checkpoints.below(run))
            after = last_checkpoint(checkpoints, run)
            hopeless = is_out_of_memory(error) or our_error(error) is not None
            if hopeless or _path(after) == _path(before):
                raise
            on_death(error)


def _path(checkpoint: ray.train.Checkpoint | None) -> str | None:
    return None if checkpoint is None else str(checkpoint.path)
