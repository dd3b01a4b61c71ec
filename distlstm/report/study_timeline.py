"""When each worker of a study was busy: a lane per worker, without pauses of the whole study."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from distlstm.report.axes import Numbers
from distlstm.report.lane_chart import Lane, Span, lane_chart
from distlstm.report.study_data import Epoch
from distlstm.report.svg import colour

_UNITS = (("hours", 3600.0, 2.0), ("minutes", 60.0, 3.0), ("seconds", 1.0, 0.0))
_LONG_PAUSE = 0.25


@dataclass(frozen=True, kw_only=True)
class Busy:
    """Start and end of an epoch, in seconds since the study's first, without pauses."""

    epoch: Epoch
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """All epochs that have times."""

    work: Sequence[Busy]
    cuts: Sequence[float]
    """The times at which a pause was left out, in seconds."""
    left_out: float
    """Total seconds of these pauses."""

    @property
    def length(self) -> float:
        """Seconds from the first start to the last end."""
        return max(busy.end for busy in self.work)

    def share(self, worker: str) -> float:
        """The share of the whole length in which a worker was busy."""
        own = [(busy.start, busy.end) for busy in self.work if busy.epoch.worker == worker]
        return sum(end - start for start, end in _merged(own)) / self.length

    @property
    def workers(self) -> list[str]:
        """The names of the workers, in the order in which they started."""
        return list(dict.fromkeys(busy.epoch.worker for busy in self.work))


def timeline_of(epochs: Iterable[Epoch]) -> Timeline | None:
    """Lay out epochs; None if none has times.

    A pause of all workers that is longer than a quarter of all work is the time between two
    commands. It is left out.
    """
    timed = [
        (epoch.started, epoch.ended, epoch)
        for epoch in epochs
        if epoch.started is not None and epoch.ended is not None and epoch.ended > epoch.started
    ]
    if not timed:
        return None
    active = _merged([(start, end) for start, end, _ in timed])
    long = _LONG_PAUSE * sum(end - start for start, end in active)
    first, left_out = active[0][0], 0.0
    shifts, cuts = [(first, 0.0)], []
    for (_, before), (after, _) in pairwise(active):
        if after - before > long:
            cuts.append(before - first - left_out)
            left_out += after - before
            shifts.append((after, left_out))

    def moved(moment: float) -> float:
        return moment - first - max(shift for begin, shift in shifts if begin <= moment)

    work = [
        Busy(epoch=epoch, start=moved(start), end=moved(start) + end - start)
        for start, end, epoch in sorted(timed, key=lambda row: row[0])
    ]
    return Timeline(work=work, cuts=cuts, left_out=left_out)


def timeline_chart(timeline: Timeline) -> Markup:
    """Draw the lanes; a bar is an epoch, with the number of its trial."""
    unit, seconds, _ = next(row for row in _UNITS if timeline.length >= row[1] * row[2])
    lanes = [
        Lane(
            name=worker,
            note=f"{timeline.share(worker):.0%} busy",
            spans=_spans([b for b in timeline.work if b.epoch.worker == worker], seconds),
        )
        for worker in timeline.workers
    ]
    return lane_chart(
        lanes,
        time=Numbers(title=f"{unit} since the first epoch", low=0, high=timeline.length / seconds),
        cuts=[cut / seconds for cut in timeline.cuts],
        label="what each worker did when",
    )


def _spans(work: Sequence[Busy], seconds: float) -> list[Span]:
    """A span per epoch, with its trial's name."""
    trials = list(dict.fromkeys(busy.epoch.trial for busy in work))
    return [
        Span(
            start=busy.start / seconds,
            end=busy.end / seconds,
            style=colour(_hue(busy.epoch.trial, trials)),
            title=f"trial {busy.epoch.trial}, epoch {busy.epoch.epoch}, "
            f"{busy.end - busy.start:.1f} s",
            name=busy.epoch.trial,
        )
        for busy in work
    ]


def _hue(trial: str, trials: Sequence[str]) -> int:
    return int(trial) if trial.isdecimal() else trials.index(trial)


def _merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Merge spans of time that touch or overlap."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
