"""Test accuracy with the default settings, of the ensemble and of each of its models.

For directories with `train.parquet`, `test.parquet` and optionally `validation.parquet` (columns
`text` and `label`). Prints a JSON line per directory: the accuracy of the ensemble, of the LSTM
alone and of the linear model alone, as medians over seeds, and the ensemble's for every seed. Then
the effect of the cascade: `partner_share`, the share of rows that the linear model answers alone;
`agreement`, the share of rows with the same label without the cascade; and accuracy, log loss and
calibration error with and without it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from distlstm.model.directory import TrainedModel, load_model
from distlstm.model.metrics import Totals, metrics_of
from distlstm.stages.prediction.predictor import Predictions, Predictor
from distlstm.text.columns import read_labels, read_texts


def train(data: Path, output: Path, seed: int, options: Sequence[str]) -> None:
    """Run `distlstm train`."""
    command = [sys.executable, "-m", "distlstm", "train", str(data / "train.parquet"), "--quiet"]
    if (data / "validation.parquet").exists():
        command += ["--validation", str(data / "validation.parquet")]
    command += ["--output", str(output), "--seed", str(seed), *options]
    subprocess.run(command, check=True, capture_output=True)


def accuracies(path: Path, data: Path) -> dict[str, float]:
    """Figures on the test rows: of the ensemble, of each model alone, and without the cascade."""
    table = pq.read_table(data / "test.parquet", columns=["text", "label"]).combine_chunks()
    texts = read_texts(table["text"].chunk(0)).texts
    truth = np.array(read_labels(table["label"].chunk(0)).to_pylist())
    model = load_model(path)
    names = np.array(model.labels.names)

    def share(predicted: Predictions) -> float:
        return float((names[predicted.label_ids] == truth).mean())

    def predictions(model: TrainedModel) -> Predictions:
        return Predictor(model, device=torch.device("cpu"))(texts)

    with_it, without = predictions(model), predictions(replace(model, cascade=None))
    lstm = predictions(replace(model, linear=None, cascade=None))
    figures = {"model": share(with_it), "lstm": share(lstm)}
    if model.linear is not None:
        encoded = Predictor(model, device=torch.device("cpu")).encode(texts)
        linear = encoded.linear_logits.argmax(1)[encoded.index]
        figures["linear"] = float((names[linear] == truth).mean())
    known = with_it.has_text & np.isin(truth, names)
    label_ids = model.labels.ids_of(pa.array(truth[known])).to_numpy().astype(np.int64)
    figures["partner_share"] = float(with_it.by_linear.mean())
    figures["agreement"] = float((with_it.label_ids == without.label_ids).mean())
    figures["without_cascade"] = share(without)
    for ending, found in (("", with_it), ("_without", without)):
        totals = Totals.of(found.probabilities[known].astype(np.float64), label_ids)
        metrics = metrics_of(totals)
        figures |= {f"log_loss{ending}": metrics.log_loss, f"ece{ending}": metrics.ece}
    return figures


def main() -> None:
    """Train with every seed on every directory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", default="", help="further options of `distlstm train`")
    options = parser.parse_args()
    for data in options.data:
        found = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(temporary) / "model"
                train(data, path, seed, options.train.split())
                found.append(accuracies(path, data))
        medians = {name: statistics.median(run[name] for run in found) for name in found[0]}
        rounded = {name: round(value, 4) for name, value in medians.items()}
        every = [round(run["model"], 4) for run in found]
        print(json.dumps({"data": data.name, **rounded, "every_seed": every}), flush=True)


if __name__ == "__main__":
    main()
