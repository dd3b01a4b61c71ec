"""The metrics of a command, made of its events; the command's node exports them to Prometheus.

Ray adds `ray_` to their names, `_total` to those of counters, and its job and node as labels.
Source: https://docs.ray.io/en/latest/ray-observability/user-guides/add-app-metrics.html
"""

import sys
from collections import Counter as Count
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distlstm.stages.run.events import (
    CheckpointSaved,
    EpochDone,
    Event,
    LanguageEpochDone,
    OnEvent,
    RowsPredicted,
    TrialsChanged,
)

if TYPE_CHECKING:  # which imports torch
    from distlstm.model.loop import EpochFigures

COUNTERS = {
    "rows_predicted": "Rows that were read and predicted.",
    "parts_written": "Parts of a prediction that are finished.",
    "tokens_predicted": "Tokens in the finished parts.",
    "rows_by_linear_model": "Rows of the finished parts that the linear model answered alone.",
    "rows_without_prediction": "Rows of the finished parts without a prediction, by reason.",
}
GAUGES = {
    "parts": "Parts that a prediction is to have.",
    "bundles_waiting": "Bundles of input that no worker has begun.",
    "workers": "Workers of a prediction, by state: working, or wanted.",
    "epoch": "Finished epochs of a training.",
    "training_loss": "Mean loss over the last epoch.",
    "training_tokens_per_second": "Training tokens a second, over the last epoch.",
    "validation": "Figures on the validation rows after the last epoch, by metric.",
    "trials": "Trials of a study, by state.",
}
CHECKPOINT_SECONDS = "checkpoint_seconds"
_BOUNDARIES = [0.1, 0.3, 1, 3, 10, 30, 100, 300]
_LABELS = {
    "rows_without_prediction": "reason",
    "workers": "state",
    "validation": "metric",
    "trials": "state",
}
"""The label of a metric besides `output`."""
_STATES_OF_TRIALS = ("running", "done", "stopped", "failed", "unfinished")


def measured(on_event: OnEvent, *, output: str) -> OnEvent:
    """A listener that also sets the metrics of this process, while it is connected to Ray.

    Args:
        on_event: gets all events.
        output: where the command writes; a label of all metrics.
    """
    metrics: Metrics | None = None

    def listener(event: Event) -> None:
        nonlocal metrics
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            metrics = metrics or Metrics(output)
            metrics.record(event)
        on_event(event)

    return listener


class Metrics:
    """Sets the metrics of a command; Ray must be connected."""

    def __init__(self, output: str) -> None:
        self.output = output
        self.metrics: dict[str, Any] = {}
        self.counted = Count[tuple[str, str]]()

    def record(self, event: Event) -> None:
        """Set what the event tells."""
        match event:
            case RowsPredicted():
                self._prediction(event)
            case EpochDone(result):
                self._epoch(result)
                self._set(
                    "validation",
                    {
                        name: getattr(result.validation, name)
                        for name in ("accuracy", "macro_f1", "log_loss")
                    },
                )
            case LanguageEpochDone(result):
                self._epoch(result)
                self._set("validation", {"perplexity": result.perplexity})
            case TrialsChanged(trials):
                states = Count(trial.state for trial in trials)
                self._set("trials", {state: states[state] for state in _STATES_OF_TRIALS})
            case CheckpointSaved(seconds):
                self._metric(CHECKPOINT_SECONDS).observe(seconds, tags={"output": self.output})
            case _:
                pass

    def _prediction(self, event: RowsPredicted) -> None:
        self._count("rows_predicted", {"": event.rows})
        self._count("parts_written", {"": event.parts})
        self._count("tokens_predicted", {"": event.tokens})
        self._count("rows_by_linear_model", {"": event.rows_by_linear_model})
        self._count("rows_without_prediction", event.rows_without_prediction)
        self._set("parts", {"": event.parts_total})
        self._set("bundles_waiting", {"": event.bundles_waiting})
        self._set("workers", {"working": event.workers, "wanted": event.workers_wanted})

    def _epoch(self, result: "EpochFigures") -> None:
        self._set("epoch", {"": result.epoch})
        self._set("training_loss", {"": result.training_loss})
        self._set("training_tokens_per_second", {"": result.num_tokens / result.seconds})

    def _count(self, name: str, totals: Mapping[str, int]) -> None:
        """Count up to these totals, by the value of the metric's label."""
        for value, total in totals.items():
            more = total - self.counted[name, value]
            if more > 0:
                self._metric(name).inc(more, tags=self._tags(name, value))
                self.counted[name, value] = total

    def _set(self, name: str, values: Mapping[str, float]) -> None:
        """Set the values of a gauge, by the value of its label."""
        for value, number in values.items():
            self._metric(name).set(number, tags=self._tags(name, value))

    def _tags(self, name: str, value: str) -> dict[str, str]:
        return {"output": self.output} | ({_LABELS[name]: value} if name in _LABELS else {})

    def _metric(self, name: str) -> Any:
        """Ray's metric of this name, made when it is first needed."""
        if name not in self.metrics:
            from ray.util.metrics import Counter, Gauge, Histogram

            own = (_LABELS[name],) if name in _LABELS else ()
            options = {"name": f"distlstm_{name}", "tag_keys": ("output", *own)}
            if name in COUNTERS:
                self.metrics[name] = Counter(description=COUNTERS[name], **options)
            elif name in GAUGES:
                self.metrics[name] = Gauge(description=GAUGES[name], **options)
            else:
                description = "Seconds that saving a checkpoint of a training takes."
                self.metrics[name] = Histogram(
                    description=description, boundaries=_BOUNDARIES, **options
                )
        return self.metrics[name]
