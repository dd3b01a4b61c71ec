"""The events that a stage sends to its `on_event` callback; the console shows them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # which imports torch
    from distlstm.model.pretraining import LanguageEpoch
    from distlstm.model.training import EpochResult


@dataclass(frozen=True)
class Progress:
    """`done` of `total` steps of a long piece of work are done."""

    title: str
    done: int
    total: int
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class RowsPredicted:
    """The state of a prediction run."""

    rows: int
    """Rows that this command has predicted so far."""
    rows_per_second: float
    share: float | None
    """Finished share of this command's work, from 0 to 1; None until it can be estimated."""
    seconds_left: float | None
    parts: int
    """Parts that this command has written."""
    parts_reused: int
    parts_total: int
    tokens: int = 0
    """Tokens in the written parts."""
    rows_by_linear_model: int = 0
    """Rows in the written parts that the linear model answered alone."""
    rows_without_prediction: Mapping[str, int] = field(default_factory=dict)
    """Rows in the written parts without a prediction, by reason."""
    workers: int = 0
    """Workers at work."""
    workers_wanted: int = 0
    """Workers that there is work for, as many as the command may have."""
    bundles_waiting: int = 0
    """Bundles of input that no worker has begun."""


@dataclass(frozen=True)
class Note:
    """A message for the user."""

    text: str
    is_warning: bool = False
    """Whether the result may be wrong if nobody reads it; shown with `--quiet` too."""


@dataclass(frozen=True)
class EpochDone:
    """An epoch of a training run has ended."""

    result: "EpochResult"
    num_epochs: int


@dataclass(frozen=True)
class LanguageEpochDone:
    """An epoch of a language model has ended."""

    result: "LanguageEpoch"
    num_epochs: int


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """The state of a trial of a study."""

    trial: str
    parameters: dict[str, Any]
    state: str
    """`running`, `done` (all epochs), `stopped` (early, because it fell behind), `failed`, or, when
    the command has ended, `unfinished`: the same command resumes it."""
    epoch: int = 0
    """The last finished epoch."""
    num_epochs: int = 0
    """The maximum number of epochs; 0 before the first report."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Validation metrics of its best epoch."""
    seconds: float = 0.0
    """Working time, without waiting."""
    rows_per_second: float | None = None
    """Rows per second that one worker classifies with a model of this size."""
    num_parameters: int | None = None
    is_chosen: bool = False
    """Whether its model is the one in `best/`."""
    error: str | None = None


@dataclass(frozen=True)
class TrialsChanged:
    """A trial started, reported, ended or failed; `trials` are all so far, best first."""

    trials: tuple[TrialRow, ...]
    num_trials: int
    metric: str


@dataclass(frozen=True)
class FirstStep:
    """A training has finished its first step."""

    seconds: dict[str, float]
    """Duration of each phase up to there, in order."""


@dataclass(frozen=True)
class CheckpointSaved:
    """A training has saved a checkpoint."""

    seconds: float


Event = (
    Progress
    | RowsPredicted
    | Note
    | EpochDone
    | LanguageEpochDone
    | TrialsChanged
    | FirstStep
    | CheckpointSaved
)
OnEvent = Callable[[Event], None]
