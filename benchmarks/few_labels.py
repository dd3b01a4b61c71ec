"""Test accuracy with few labelled rows, without and with a language model of all training texts.

For directories with `train.parquet` and `test.parquet` (columns `text` and `label`). One language
model is trained on all texts of `train.parquet`. For each number of labelled rows and each seed,
rows are drawn at random (`--per-label`: so many of each label), and two classifiers are trained on
them with the same settings, one from random weights and one from the language model. Prints a JSON
line for each directory and number: medians over the seeds of test accuracies, and the gain.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import distlstm
from benchmarks.accuracy import accuracies
from distlstm import ExperimentConfig, environment
from distlstm.stages.run.session import Resources, shared_ray


def drawn(table: pa.Table, count: int, seed: int, *, per_label: bool) -> pa.Table:
    """Labelled rows, drawn at random; of each label `count` if `per_label`."""
    order = np.random.default_rng(seed).permutation(len(table))
    if per_label:
        labels = np.array(table["label"].to_pylist())[order]
        order = np.concatenate([order[labels == name][:count] for name in np.unique(labels)])
        return table.take(np.random.default_rng(seed).permutation(order))
    return table.take(order[:count])


def measured(
    data: Path, rows: pa.Table, init: Path | None, config: ExperimentConfig
) -> dict[str, float]:
    """Test accuracies of a classifier of these rows."""
    with tempfile.TemporaryDirectory() as temporary:
        pq.write_table(rows, f"{temporary}/rows.parquet")
        output = Path(temporary) / "model"
        distlstm.train(
            f"{temporary}/rows.parquet", output=output, init=init, config=config, workers=1
        )
        return accuracies(output, data)


def main() -> None:
    """Measure every directory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--labels", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--per-label", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--language-models", type=Path, help="directory to keep them in")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    config = distlstm.load_config(None, options.settings)
    with (
        tempfile.TemporaryDirectory() as temporary,
        environment.prepared(),
        shared_ray(Resources()),
    ):
        for data in options.data:
            language_model = (options.language_models or Path(temporary)) / data.name
            learnt = distlstm.pretrain(
                data / "train.parquet", output=language_model, config=config, workers=1
            )
            table = pq.read_table(data / "train.parquet", columns=["text", "label"])
            for count in options.labels:
                runs = []
                for seed in range(options.seeds):
                    rows = drawn(table, count, seed, per_label=options.per_label)
                    own = config.with_values({"seed": seed})
                    runs.append(
                        {
                            name: measured(data, rows, init, own)
                            for name, init in (("plain", None), ("pretrained", language_model))
                        }
                    )
                print(json.dumps(_line(data, len(rows), learnt.perplexity, runs)), flush=True)


def _line(
    data: Path, num_rows: int, perplexity: float, runs: list[dict[str, dict[str, float]]]
) -> dict[str, object]:
    figures: dict[str, object] = {
        "data": data.name,
        "labelled_rows": num_rows,
        "perplexity": round(perplexity, 1),
    }
    for name in ("plain", "pretrained"):
        for part in ("model", "lstm", "linear"):
            found = [run[name][part] for run in runs]
            figures[f"{name}_{part}"] = round(statistics.median(found), 4)
    gains = [run["pretrained"]["model"] - run["plain"]["model"] for run in runs]
    figures["gain"] = round(statistics.median(gains), 4)
    figures["gains"] = [round(gain, 4) for gain in gains]
    return figures


if __name__ == "__main__":
    main()
