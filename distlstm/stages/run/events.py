"""What a stage tells whoever watches it; the console draws these."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # which imports torch
    from distlstm.model.loop import EpochResult


@dataclass(frozen=True)
class Progress:
    """So much of a long piece of work is done."""

    title: str
    done: int
    total: int
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class RowsPredicted:
    """A prediction run, as it stands."""

    rows: int
    """Predicted by this command so far."""
    rows_per_second: float
    share: float | None
    """Of what this command has to do, from 0 to 1; None until it can be told."""
    seconds_left: float | None
    parts: int
    """Written by this command."""
    parts_reused: int
    parts_total: int


@dataclass(frozen=True)
class Note:
    """Something the user should know."""

    text: str


@dataclass(frozen=True)
class EpochDone:
    """An epoch of a training run has ended."""

    result: "EpochResult"
    num_epochs: int


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A trial of a study, as it stands."""

    trial: str
    parameters: dict[str, Any]
    state: str
    """`running`, `done` (all its epochs), `stopped` (it fell behind), `failed`, or, once nothing
    runs any more, `unfinished`: the same command goes on with it."""
    epoch: int = 0
    """The last one that has ended."""
    num_epochs: int = 0
    """How many it is to have at the most; 0 before its first report."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Validation figures of its best epoch."""
    seconds: float = 0.0
    """Of work; waiting left out."""
    rows_per_second: float | None = None
    """That one worker would classify, with a model of this size."""
    num_parameters: int | None = None
    is_chosen: bool = False
    """Whether it is the model in `best/`."""
    error: str | None = None


@dataclass(frozen=True)
class TrialsChanged:
    """A trial reported, ended or failed; `trials` are all so far, best first."""

    trials: tuple[TrialRow, ...]
    num_trials: int
    metric: str


@dataclass(frozen=True)
class FirstStep:
    """A training has made its first step."""

    seconds: dict[str, float]
    """Of each part of the way there, in order."""


Event = Progress | RowsPredicted | Note | EpochDone | TrialsChanged | FirstStep
OnEvent = Callable[[Event], None]
