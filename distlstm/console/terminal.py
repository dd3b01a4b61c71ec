"""Shows the progress of a command: a live display in a terminal, plain lines elsewhere.

It is written to stderr through a descriptor of its own, because descriptors 1 and 2 are silenced
while Ray runs. Lines of progress are at least five seconds apart.
"""

import os
import sys
import time
from types import TracebackType
from typing import IO, Self

import rich.progress
from rich.console import Console, Group
from rich.live import Live

from distlstm.console.lines import (
    duration,
    epoch_line,
    language_epoch_line,
    rows_detail,
    share_of_study,
    short,
    shown,
    trial_line,
)
from distlstm.console.tables import start_up_table, trials_table
from distlstm.stages.run.events import (
    EpochDone,
    Event,
    FirstStep,
    LanguageEpochDone,
    Note,
    Progress,
    RowsPredicted,
    TrialsChanged,
)

_SECONDS_BETWEEN_LINES = 5.0


class TerminalProgress:
    """Shows the events of a command: `on_event=TerminalProgress()`.

    As a context manager, it draws a live display in a terminal; otherwise it writes lines.
    """

    def __init__(self, *, quiet: bool = False, debug: bool = False) -> None:
        self.quiet = quiet
        self.debug = debug
        self.console = Console(file=_own_stderr(), highlight=False, soft_wrap=True)
        self.bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[detail]}"),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self.console,
        )
        self.task: rich.progress.TaskID | None = None
        self.title = ""
        self.trials: TrialsChanged | None = None
        self.last_line = 0.0
        self.live = Live(
            get_renderable=self._render, console=self.console, transient=True, refresh_per_second=5
        )

    def __enter__(self) -> Self:
        """Start the live display, if stderr is a terminal."""
        if self.console.is_terminal and not self.quiet:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the live display; printed lines stay."""
        self.live.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self.quiet and not (isinstance(event, Note) and event.is_warning):
            return
        match event:
            case Progress(title, done, total, detail):
                counts = f"{done:,} of {total:,} {detail}".rstrip()
                self._progress(title, share=done / max(1, total), detail=counts)
            case RowsPredicted():
                seconds = event.seconds_left
                left = "" if seconds is None else f", {duration(seconds)} left"
                detail = rows_detail(event)
                self._progress("predicting", share=event.share, detail=detail, left=left)
            case Note(text, is_warning):
                mark = "[bold yellow]Warning:[/] " if is_warning else ""
                self.console.print(f"{mark}{shown(text)}")
            case EpochDone():
                self.console.print(epoch_line(event))
            case LanguageEpochDone():
                self.console.print(language_epoch_line(event))
            case TrialsChanged():
                self._trials(event)
            case FirstStep(seconds):
                if self.debug:
                    self.console.print(start_up_table(seconds))

    @property
    def _draws(self) -> bool:
        return self.live.is_started

    def _render(self) -> Group:
        table = (
            [] if self.trials is None else [trials_table(self.trials.trials, self.trials.metric)]
        )
        return Group(*table, self.bar)

    def _progress(self, title: str, *, share: float | None, detail: str, left: str = "") -> None:
        """Update the bar, which shows the time left by itself, or write a line.

        `share` is from 0 to 1; None while it is unknown.
        """
        if title != self.title:
            if self.task is not None:
                self.bar.remove_task(self.task)
            self.task = self.bar.add_task(shown(title), total=None, detail="")
            self.title, self.last_line = title, 0.0
        if self.task is not None:
            total = None if share is None else 1.0
            self.bar.update(self.task, completed=share or 0, total=total, detail=shown(detail))
        now = time.monotonic()
        waited = now - self.last_line > _SECONDS_BETWEEN_LINES
        if not self._draws and share and waited:
            self.last_line = now
            self.console.print(shown(f"{title}: {detail}{left}"))

    def _trials(self, event: TrialsChanged) -> None:
        before = {} if self.trials is None else {row.trial: row for row in self.trials.trials}
        self.trials = event
        ended = [row for row in event.trials if row.state != "running"]
        best = event.trials[0].metrics.get(event.metric) if event.trials else None
        best_so_far = "" if best is None else f", best {event.metric} {short(best)}"
        detail = f"{len(ended)} of {event.num_trials} trials{best_so_far}"
        self._progress("tuning", share=share_of_study(event), detail=detail)
        for row in ended:
            if row.trial not in before or before[row.trial].state == "running":
                self.console.print(shown(trial_line(row, event.metric)))


def _own_stderr() -> IO[str]:
    """The terminal or file of stderr, with a descriptor that nothing else redirects."""
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", buffering=1)
    except (OSError, ValueError):
        return sys.stderr
