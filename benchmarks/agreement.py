"""Agreement of predictions in bfloat16 with those in float32, on real text.

Without arguments, it trains a model on the demo's corpus. Prints one JSON line: the share of rows
with the same label, and the differences of the scores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from distlstm.demo.corpus import build_stdlib_corpus
from distlstm.model.directory import load_model
from distlstm.stages.prediction.predictor import Predictions, Predictor
from distlstm.text.columns import read_texts


def predictions(path: Path, source: Path, precision: str) -> Predictions:
    """The predictions of a model for the texts of a file, in one precision."""
    model = load_model(path)
    training = replace(model.config.training, precision=precision)  # type: ignore[arg-type]
    config = replace(model.config, training=training)
    model = replace(model, config=config, cascade=None)  # the linear model is always float32
    texts = pq.read_table(source, columns=["text"])["text"].combine_chunks()
    return Predictor(model, device=torch.device("cpu"))(read_texts(texts).texts)


def agreement(path: Path, source: Path) -> dict[str, float]:
    """Compare the predictions in both precisions."""
    half, full = (predictions(path, source, precision) for precision in ("bf16", "fp32"))
    apart = np.abs(half.scores - full.scores)
    return {
        "rows": len(apart),
        "same_label": round(float((half.label_ids == full.label_ids).mean()), 5),
        "largest_difference_of_scores": round(float(np.nanmax(apart)), 4),
        "share_of_scores_within_0.01": round(float((apart <= 0.01).mean()), 5),
    }


def main() -> None:
    """Train a model if none is given, then compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--input", type=Path, help="a Parquet file or directory with `text`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        model, source = options.model, options.input
        if model is None or source is None:
            build_stdlib_corpus(directory / "corpus")
            model, source = directory / "model", directory / "corpus" / "unlabelled"
            train = [sys.executable, "-m", "distlstm", "train", "--quiet", "--output", str(model)]
            data = str(directory / "corpus" / "train.parquet")
            subprocess.run([*train, data], check=True, capture_output=True)
        figures = agreement(model, source)
    print(json.dumps({"benchmark": "bfloat16 against float32", **figures}))


if __name__ == "__main__":
    main()
