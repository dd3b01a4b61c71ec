"""The metrics of the service: recorded through Ray, read from the agents of its nodes.

`ray.util.metrics` sends what a process records to the agent of its node, which answers Prometheus.
So the sums over all replicas are found there, and they outlive a replica.
"""

import contextlib
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import ray
from ray.util import metrics

from distlstm.stages.serving.batcher import Batch

_PREFIX = "distlstm_serve_"
_EXPORTED = f"ray_{_PREFIX}"
"""Ray puts `ray_` before every name."""
_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
_SIZES = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0]
_SECONDS_BETWEEN_REPORTS = 1.0
_PATIENCE = 5.0
"""Seconds that an agent has to answer."""


@dataclass
class _Unreported:
    """What has happened since the last report."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    loaded: Counter[str] = field(default_factory=Counter)


class Figures:
    """The metrics of a replica; a thread reports them to Ray, so that no request waits for it."""

    def __init__(self) -> None:
        self._unreported = _Unreported()
        self._lock = threading.Lock()
        self._requests = metrics.Counter(
            f"{_PREFIX}requests", "Requests, by path and HTTP status.", ("path", "status")
        )
        self._texts = metrics.Counter(f"{_PREFIX}texts", "Texts predicted.")
        self._tokens = metrics.Counter(f"{_PREFIX}tokens", "Tokens of these texts.")
        self._loads = metrics.Counter(
            f"{_PREFIX}model_loads", "Attempts to load a model, by result.", ("result",)
        )
        self._seconds = metrics.Histogram(
            f"{_PREFIX}request_seconds", "Seconds to answer POST /predict.", _SECONDS
        )
        self._batch_texts = metrics.Histogram(
            f"{_PREFIX}batch_texts", "Texts predicted together.", _SIZES
        )
        self._batch_tokens = metrics.Histogram(
            f"{_PREFIX}batch_tokens", "Tokens predicted together.", _SIZES
        )
        threading.Thread(target=self._report_often, name="figures", daemon=True).start()

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        with self._lock:
            self._unreported.requests[path, status] += 1
            if path == "/predict":
                self._unreported.seconds.append(seconds)

    def batch(self, batch: Batch) -> None:
        """Count a batch that was computed."""
        with self._lock:
            self._unreported.batches.append(batch)

    def loaded(self, result: str) -> None:
        """Count an attempt to load a model."""
        with self._lock:
            self._unreported.loaded[result] += 1

    def _report_often(self) -> None:
        while True:
            time.sleep(_SECONDS_BETWEEN_REPORTS)
            self.report()

    def report(self) -> None:
        """Hand over to Ray what has happened since the last report."""
        with self._lock:
            now, self._unreported = self._unreported, _Unreported()
        for (path, status), count in now.requests.items():
            self._requests.inc(count, {"path": path, "status": str(status)})
        for result, count in now.loaded.items():
            self._loads.inc(count, {"result": result})
        for seconds in now.seconds:
            self._seconds.observe(seconds)
        for batch in now.batches:
            self._batch_texts.observe(batch.num_texts)
            self._batch_tokens.observe(batch.num_tokens)
        for metric, count in (
            (self._texts, sum(batch.num_texts for batch in now.batches)),
            (self._tokens, sum(batch.num_tokens for batch in now.batches)),
        ):
            if count:
                metric.inc(count)


def exposition() -> str:
    """The metrics of the service on all nodes, in the text format of Prometheus."""
    families: dict[str, dict[str, None]] = {}
    for text in _of_agents():
        family = ""
        for line in text.splitlines():
            family = line.split(" ", 3)[2] if line.startswith("#") else family
            if family.startswith(_EXPORTED):
                families.setdefault(family, {})[line] = None
    return "".join(f"{line}\n" for lines in families.values() for line in lines)


def _of_agents() -> Iterator[str]:
    """What the metrics agent of each node answers; none for one that does not answer."""
    for node in ray.nodes():
        if node["Alive"] and node["MetricsExportPort"]:
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(url, timeout=_PATIENCE) as answer,
            ):
                yield answer.read().decode()
