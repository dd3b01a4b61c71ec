"""Shows the progress of an API function in a notebook cell."""

import time
from html import escape
from typing import Any

from distlstm.console.lines import (
    epoch_line,
    language_epoch_line,
    rows_detail,
    share_of_study,
    trial_line,
)
from distlstm.errors import UserError
from distlstm.stages.run.events import (
    CheckpointSaved,
    EpochDone,
    Event,
    FirstStep,
    LanguageEpochDone,
    Note,
    Progress,
    RowsPredicted,
    TrialsChanged,
)

_SECONDS_BETWEEN_UPDATES = 0.2
_MAX_LINES = 40


class NotebookProgress:
    """Shows the events of a call below its cell: `on_event=NotebookProgress()`."""

    def __init__(self) -> None:
        try:
            from IPython.display import HTML, display
        except ImportError as error:
            raise UserError(
                "NotebookProgress needs IPython, which every notebook has. In a terminal, use "
                "TerminalProgress."
            ) from error
        self._html: Any = HTML
        self._lines: list[str] = []
        self._ended_trials: set[str] = set()
        self._title, self._share, self._detail = "", 0.0, ""
        self._last = 0.0
        self._handle: Any = display(HTML(""), display_id=True)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Progress(title, done, total, detail):
                self._move(title, done / max(1, total), f"{done:,} of {total:,} {detail}")
            case RowsPredicted():
                self._move("predicting", event.share or 0.0, rows_detail(event))
            case Note(text):
                self._add(text)
            case EpochDone():
                self._add(epoch_line(event))
            case LanguageEpochDone():
                self._add(language_epoch_line(event))
            case TrialsChanged():
                self._trials(event)
            case FirstStep() | CheckpointSaved():
                pass

    def _trials(self, event: TrialsChanged) -> None:
        ended = [row for row in event.trials if row.state != "running"]
        self._move("tuning", share_of_study(event), f"{len(ended)} of {event.num_trials} trials")
        for row in ended:
            if row.trial not in self._ended_trials:
                self._ended_trials.add(row.trial)
                self._add(trial_line(row, event.metric))

    def _move(self, title: str, share: float, detail: str) -> None:
        self._title, self._share, self._detail = title, share, detail.strip()
        self._show(at_once=share >= 1)

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._show(at_once=True)

    def _show(self, *, at_once: bool) -> None:
        now = time.monotonic()
        if self._handle is not None and (at_once or now - self._last > _SECONDS_BETWEEN_UPDATES):
            self._last = now
            self._handle.update(self._html(self.to_html()))

    def to_html(self) -> str:
        """The current content of the cell."""
        lines = "\n".join(self._lines[-_MAX_LINES:])
        bar = f'<progress max="1" value="{self._share:.3f}"></progress>'
        state = f"{bar} {escape(self._title)}: {escape(self._detail)}" if self._title else ""
        return f"<div>{state}</div><pre>{escape(lines)}</pre>"
