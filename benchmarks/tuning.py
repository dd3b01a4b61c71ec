"""The quality that a study reaches with a given number of training steps, and the cost of a trial.

Prints one JSON line. For each training set given (Parquet with `text` and `label`), as medians over
seeds, all with the number of steps that `random` takes:
- `default`: the best validation macro-F1 of the default configuration, trained again with other
  seeds until the steps are used up;
- `random`: that of random search without early stopping;
- `tune`: that of `distlstm tune` with its defaults (TPE, early stopping), whose epochs count in
  order until the steps are used up;
- `fast_over_default`: rows per second of the fastest trial of `tune` within half a point of its
  best (the choice of `--prefer fast`), over those of the default.

Then, on 3,000 rows and with one epoch per trial:
- `seconds_beyond_epochs`: the time of a trial of `tune` beyond its epochs, on a worker that has run
  another trial before: loading, checkpoint, proposal and hand-over (median);
- `busy_share`: epochs over workers' time, from the start of the first trial to that of the last;
- `trials_per_minute_over_nested`: against the usual way, in which each trial is a Ray Train job
  that reads and encodes the corpus again. Both run the same number of trials at once.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from distlstm import environment
from distlstm.demo.corpus import build_stdlib_corpus
from distlstm.storage import LocalStorage

METRIC = "macro_f1"
FULL_TRIALS, QUICK_TRIALS, NESTED_TRIALS, QUICK_ROWS = 6, 20, 6, 3_000
EPOCH = ["--set", "training.max_epochs=1", "--set", "training.min_epochs=1"]


def tune(data: Path, output: Path, *options: object) -> dict[str, Any]:
    """Run the command; return its JSON result."""
    command = [sys.executable, "-m", "distlstm", "tune", data, "--output", output, "--json"]
    done = subprocess.run(
        list(map(str, [*command, "--quiet", *options])), check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout))


def epochs_of(study: Path) -> list[dict[str, Any]]:
    """All epochs of a study."""
    return list(pq.read_table(study / "epochs.parquet").to_pylist())


def best_within(study: Path, *, num_epochs: int) -> float:
    """The best metric of the `num_epochs` that ended first; all epochs have the same steps."""
    ordered = sorted(epochs_of(study), key=lambda epoch: epoch["ended"])
    return float(max(epoch[METRIC] for epoch in ordered[:num_epochs]))


def quality(data: Path, directory: Path, seed: int) -> dict[str, float]:
    """The figures of all three ways, with the same number of epochs."""
    no_stops = ["--set", "search.algorithm=random", "--set", "search.grace_epochs=1000"]
    common = ["--seed", seed]
    tune(data, directory / "random", *common, *no_stops, "--trials", FULL_TRIALS)
    num_epochs = len(epochs_of(directory / "random"))
    tune(data, directory / "tune", *common, "--trials", 4 * FULL_TRIALS)
    default, used, best = directory / "default", 0, 0.0
    while used < num_epochs:
        study = default / str(used)
        one = ["--seed", seed * 100 + used, "--trials", 1, *no_stops]
        tune(data, study, *one)
        best = max(best, best_within(study, num_epochs=num_epochs - used))
        used += len(epochs_of(study))
    return {
        "default": best,
        "random": best_within(directory / "random", num_epochs=num_epochs),
        "tune": best_within(directory / "tune", num_epochs=num_epochs),
        "epochs": num_epochs,
        "fast_over_default": fast_over_default(directory / "tune"),
        "trials_of_tune": len({e["trial"] for e in first(directory / "tune", num_epochs)}),
    }


def fast_over_default(study: Path) -> float:
    """Speed of the fastest good LSTM over that of the default, which is the first trial."""
    trials = {row["trial"]: row for row in pq.read_table(study / "trials.parquet").to_pylist()}
    measured = [row for row in trials.values() if row[METRIC] is not None]
    best = max(row[METRIC] for row in measured)
    default = trials["0"]["rows_per_second"] or math.nan  # it may have failed
    good = [row["rows_per_second"] for row in measured if row[METRIC] >= best - 0.005]
    return float(max(good) / default)


def first(study: Path, num_epochs: int) -> list[dict[str, Any]]:
    """The `num_epochs` epochs that ended first."""
    return sorted(epochs_of(study), key=lambda epoch: epoch["ended"])[:num_epochs]


def cost(data: Path, directory: Path) -> dict[str, float]:
    """The cost of trials of one epoch."""
    study = directory / "quick"
    tune(data, study, *EPOCH, "--trials", QUICK_TRIALS)
    epochs = sorted(epochs_of(study), key=lambda epoch: epoch["started"])
    by_worker: dict[str, list[dict[str, Any]]] = {}
    for epoch in epochs:
        by_worker.setdefault(epoch["worker"], []).append(epoch)
    beyond = [
        later["ended"] - earlier["ended"] - later["seconds"]
        for own in by_worker.values()
        for earlier, later in pairwise(own)
    ]
    start, end = epochs[0]["started"], epochs[-1]["started"]
    busy = sum(min(e["ended"], end) - min(e["started"], end) for e in epochs)
    last = max(epoch["ended"] for epoch in epochs)
    per_minute = len(epochs) / (last - start) * 60
    nested = nested_trials_per_minute(data, directory, num_workers=len(by_worker))
    return {
        "seconds_beyond_epochs": statistics.median(beyond),
        "busy_share": busy / (len(by_worker) * (end - start)),
        "trials_per_minute": per_minute,
        "trials_per_minute_over_nested": per_minute / nested,
    }


def nested_trials_per_minute(data: Path, directory: Path, *, num_workers: int) -> float:
    """Trials per minute of the usual way, in a separate process."""
    code = (
        "import sys; from benchmarks.tuning import run_nested; "
        "print(run_nested(sys.argv[1], sys.argv[2], int(sys.argv[3])))"
    )
    command = [sys.executable, "-c", code, str(data), str(directory / "nested"), str(num_workers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.strip().split("\n")[-1])


def run_nested(data: str, output: str, num_workers: int) -> float:
    """Trials per minute, from the start of the first to the end of the last."""
    environment.prepare()
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    import ray
    import ray.tune

    ray.init(address="local", log_to_driver=False, include_dashboard=True)

    def trial(parameters: dict[str, Any]) -> None:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from ray.tune.integration.ray_train import TuneReportCallback

        started = time.time()
        trainer = TorchTrainer(
            nested_worker,
            train_loop_config={"data": data, **parameters},
            scaling_config=ScalingConfig(num_workers=1),
            run_config=RunConfig(storage_path=f"{output}-train", callbacks=[TuneReportCallback()]),
        )
        trainer.fit()
        ray.tune.report({"accuracy": 0.0, "started": started, "ended": time.time()})

    tuner = ray.tune.Tuner(
        ray.tune.with_resources(trial, {"memory": 1}),
        param_space={"hidden_dim": ray.tune.choice([64, 128])},
        tune_config=ray.tune.TuneConfig(
            num_samples=NESTED_TRIALS, max_concurrent_trials=num_workers
        ),
        run_config=ray.tune.RunConfig(name="nested", storage_path=output, verbose=0),
    )
    metrics = [result.metrics for result in tuner.fit()]
    ray.shutdown()
    seconds = max(m["ended"] for m in metrics) - min(m["started"] for m in metrics)
    return float(len(metrics) / seconds * 60)


def nested_worker(parameters: dict[str, Any]) -> None:
    """Run a whole trial in its worker: read and encode the corpus, train one epoch, report."""
    import ray.train
    import torch

    from distlstm.config import load_config
    from distlstm.data.encoding import encode_corpus
    from distlstm.model.loop import Worker
    from distlstm.stages.training.job import TrainingJob
    from distlstm.stages.training.labelled_data import DataRequest

    torch.set_num_threads(1)
    settings = [*EPOCH[1::2], f"model.hidden_dim={parameters['hidden_dim']}"]
    config = load_config(None, settings)
    with tempfile.TemporaryDirectory() as directory:
        spec = DataRequest(training=(parameters["data"],)).find(config, on_event=print)
        corpus = encode_corpus(
            spec, LocalStorage(Path(directory, "corpus")), progress=lambda *_: None
        )
        job = TrainingJob(corpus, config, Worker())
        for result in job.training.run(job.training_batches, job.validation_batches):
            ray.train.report({"accuracy": result.validation.accuracy})


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="*", help="training sets to search on")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    figures: dict[str, Any] = {"benchmark": "tune", "seeds": options.seeds}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        for data in options.data:
            runs = [
                quality(data, directory / data.parent.name / str(seed), seed)
                for seed in range(options.seeds)
            ]
            figures[data.parent.name] = {
                name: round(statistics.median(run[name] for run in runs), 4) for name in runs[0]
            }
        build_stdlib_corpus(directory / "corpus")
        rows = pq.read_table(directory / "corpus" / "train.parquet").slice(0, QUICK_ROWS)
        pq.write_table(rows, directory / "quick.parquet")
        costs = cost(directory / "quick.parquet", directory)
        figures |= {name: round(value, 3) for name, value in costs.items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
