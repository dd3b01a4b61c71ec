"""How far a command is, by the lines of progress in the log of its job."""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class JobProgress:
    """How far a job is."""

    done: str = ""
    """Such as `epoch 3 of up to 20`, `5 of 30 trials` or `40% of the rows`."""
    figure: str = ""
    """The best metric so far, or the speed: `best accuracy 0.8731`, `1,200 rows/s`."""


_EPOCH = re.compile(
    r"(?:language model, )?epoch +(?P<epoch>\d+) of (?P<most>(?:up to )?\d+): (?P<rest>.*)"
)
_STEPS = re.compile(r"[\d,]+ of [\d,]+ steps")
_QUALITY = re.compile(r"(accuracy|perplexity) [\d.,]+\d")
_TUNING = re.compile(r"tuning: (?P<done>\d+ of \d+ trials)(?:, (?P<figure>best .*))?")
_PREDICTING = re.compile(
    r"predicting: (?P<rows>[\d,]+ rows)(?: \((?P<share>\d+%)\))?, (?P<figure>[\d,]+ rows/s)"
)
_PREDICTED = re.compile(r"(?P<rows>[\d,]+ rows) out of .*")
_SPEED = re.compile(r"\d+ s in all; (?P<figure>[\d,]+ rows/s)")
_STEP = re.compile(r"(?P<title>[a-z][\w ]{2,40}): (?P<done>[\d,]+) of (?P<total>[\d,]+)\b.*")


def progress_in(lines: Iterable[str]) -> JobProgress:
    """The progress that the last lines of a log show."""
    progress = JobProgress()
    for line in lines:
        progress = _after(progress, line.strip())
    return progress


def _after(progress: JobProgress, line: str) -> JobProgress:
    """The progress after one more line."""
    if found := _EPOCH.fullmatch(line):
        quality = _QUALITY.search(found["rest"])
        is_best = line.endswith("(best)") or not progress.figure
        figure = f"best {quality[0]}" if quality and is_best else progress.figure
        steps = f", {found['rest']}" if _STEPS.fullmatch(found["rest"]) else ""
        return JobProgress(f"epoch {found['epoch']} of {found['most']}{steps}", figure)
    if found := _TUNING.fullmatch(line):
        return JobProgress(found["done"], found["figure"] or progress.figure)
    if found := _PREDICTING.match(line):
        return JobProgress(f"{found['rows']}{_in_brackets(found['share'])}", found["figure"])
    if found := _PREDICTED.fullmatch(line):
        return JobProgress(found["rows"], progress.figure)
    if found := _SPEED.match(line):
        return JobProgress(progress.done, found["figure"])
    if found := _STEP.fullmatch(line):
        if progress.done and found["done"] == found["total"]:
            return progress
        done = f"{found['title']}: {found['done']} of {found['total']}"
        return JobProgress(done, progress.figure)
    return progress


def _in_brackets(text: str | None) -> str:
    return f" ({text})" if text else ""
