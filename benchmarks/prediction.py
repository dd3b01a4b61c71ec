"""`batch-predict` end to end, against the bare kernel and against the usual recipe.

Prints one JSON line:
- `of_bare_kernel`: tokens per second of `batch-predict` once its workers run, over those of bare
  `nn.LSTM` calls of the same sizes, dtype and number of processes, on batches of the same lengths;
- `of_plain_recipe`: the same over Ray Data's `map_batches` with pandas, a Python tokenizer, and
  float32 batches padded in the order of the file, with the same number of workers;
- `two_workers_over_one`: the same for two workers over one;
- `of_no_cascade`: tokens per second of one worker with a cascade over those without one, for a
  model trained with the defaults on the demo's corpus, on its unlabelled rows; `partner_share` is
  the share of rows that the linear model answers alone; `with_cascade_of_...` are the first two
  ratios for this model, with one worker;
- `seconds_with_nothing_to_do`: of the whole command on a finished output.

Every figure is a median over several runs, in turn with the others. All but those of the cascade
are of a model without one, with random weights: speed does not depend on them. By default their
rows are those of the demo's corpus, each made distinct by a number.
"""

import argparse
import json
import multiprocessing as mp
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from distlstm import environment
from distlstm.config import ExperimentConfig, ModelConfig
from distlstm.data.batching import INFERENCE_LIMITS, cut_by_length
from distlstm.demo.corpus import build_stdlib_corpus
from distlstm.model.classifier import Classifier
from distlstm.model.directory import TrainedModel, load_model, save_model
from distlstm.model.linear import LinearModel, fit_features
from distlstm.model.recurrent import recurrent_dtype
from distlstm.text.columns import read_texts
from distlstm.text.labels import LabelSet
from distlstm.text.splitting import split
from distlstm.text.subwords import subwords_of
from distlstm.text.tokenizer import Tokenizer
from distlstm.text.vocabulary import Vocabulary

NUM_ROWS, NUM_LABELS, PLAIN_SHARE = 320_000, 8, 16
ROW_GROUP = 20_000


def made_up_input(directory: Path) -> Path:
    """Write distinct rows of real text into files of several row groups; return their directory."""
    build_stdlib_corpus(directory / "corpus")
    texts = pq.read_table(directory / "corpus" / "unlabelled", columns=["text"])["text"].to_pylist()
    longer = [f"{a} {b}" for a, b in zip(texts[::2], texts[1::2], strict=False)]
    numbers = count()
    repeated = [longer[i % len(longer)] for i in range(NUM_ROWS)]
    table = pa.table({"text": [f"{text} {next(numbers)}" for text in repeated]})
    path = directory / "input"
    path.mkdir()
    for i in range(4):
        part = table.slice(i * NUM_ROWS // 4, NUM_ROWS // 4)
        pq.write_table(part, path / f"{i}.parquet", row_group_size=ROW_GROUP)
    return path


def read_all(path: Path) -> pa.Array:
    """The texts of a Parquet file or directory."""
    return pq.read_table(path, columns=["text"])["text"].combine_chunks()


def random_model(texts: pa.Array, path: Path) -> None:
    """Save a model of default sizes and random weights, with a vocabulary from these texts."""
    config = ExperimentConfig()
    sample = texts.slice(0, 50_000)
    counts = split(read_texts(sample).texts, config.text).flatten().value_counts()
    table = pa.table({"token": counts.field("values"), "count": counts.field("counts")})
    vocabulary = Vocabulary.from_counts(table, config.text)
    encoded = Tokenizer(config.text, vocabulary).encode(read_texts(sample).texts)
    features, _ = fit_features(
        encoded.values, encoded.offsets, subwords_of(vocabulary.tokens), most=2**22
    )
    weight = torch.randn(features.count, NUM_LABELS)
    model = TrainedModel(
        config=config,
        classifier=Classifier(config.model, vocab_size=len(vocabulary), num_labels=NUM_LABELS),
        vocabulary=vocabulary,
        labels=LabelSet(tuple(f"label {i}" for i in range(NUM_LABELS))),
        temperature=1.0,
        linear=LinearModel(features, weight, torch.zeros(NUM_LABELS)),
    )
    save_model(model, path)


def batch_predict(source: Path, model: Path, output: Path, workers: int) -> dict[str, Any]:
    """Run the command; return its JSON result."""
    command = [sys.executable, "-m", "distlstm", "batch-predict", str(source), "--json", "--quiet"]
    options = ["--model", str(model), "--output", str(output), "--workers", str(workers)]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def bare_process(model: Path, lengths: np.ndarray, queue: "mp.Queue[float]") -> None:
    """Run a bare `nn.LSTM` on batches of these lengths; put the seconds into the queue."""
    torch.set_num_threads(1)
    config = load_model(model).config
    dtype = recurrent_dtype(config.training.precision, torch.device("cpu"))
    lstm = nn.LSTM(
        config.model.embedding_dim,
        config.model.hidden_dim,
        num_layers=config.model.num_layers,
        bidirectional=config.model.bidirectional,
        batch_first=True,
    ).to(dtype)
    shapes = [
        (len(rows), int(lengths[rows[-1]]))
        for rows in cut_by_length(np.flatnonzero(lengths), lengths, INFERENCE_LIMITS["cpu"])
    ]
    inputs = {
        shape: torch.randn(*shape, config.model.embedding_dim, dtype=dtype) for shape in shapes
    }
    with torch.inference_mode():
        lstm(inputs[shapes[-1]])
        started = time.perf_counter()
        for shape in shapes:
            lstm(inputs[shape])
        queue.put(time.perf_counter() - started)


def bare_tokens_per_second(model: Path, lengths: np.ndarray, workers: int) -> float:
    """Tokens per second of all processes together."""
    context = mp.get_context("spawn")
    queue: mp.Queue[float] = context.Queue()
    processes = [
        context.Process(target=bare_process, args=(model, lengths[i::workers], queue))
        for i in range(workers)
    ]
    for process in processes:
        process.start()
    seconds = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return float(lengths.sum() / statistics.mean(seconds))


class PlainModel(nn.Module):
    """The textbook module of the same sizes; its LSTM also reads the padding."""

    def __init__(self, sizes: ModelConfig, *, vocab_size: int, num_labels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, sizes.embedding_dim, padding_idx=0)
        self.lstm = nn.LSTM(
            sizes.embedding_dim,
            sizes.hidden_dim,
            num_layers=sizes.num_layers,
            bidirectional=sizes.bidirectional,
            batch_first=True,
        )
        state_dim = sizes.hidden_dim * (2 if sizes.bidirectional else 1)
        self.output = nn.Linear(len(sizes.pooling) * state_dim, num_labels)

    def forward(self, token_ids_BT: Tensor) -> Tensor:
        """Logits [B, C] from the last states, and the maximum and mean of all."""
        states_BTS, (last, _) = self.lstm(self.embedding(token_ids_BT))
        pooled = [*last, states_BTS.amax(1), states_BTS.mean(1)]
        logits: Tensor = self.output(torch.cat(pooled, dim=1))
        return logits


class PlainRecipe:
    """The usual class for `map_batches`."""

    def __init__(self, model: Path) -> None:
        torch.set_num_threads(1)
        loaded = load_model(model)
        self.classifier = PlainModel(
            loaded.config.model, vocab_size=len(loaded.vocabulary), num_labels=len(loaded.labels)
        ).eval()
        self.ids = {token: i for i, token in enumerate(loaded.vocabulary.tokens.to_pylist())}
        self.labels = loaded.labels.names

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Label a batch, and record the worker and the times."""
        started = time.perf_counter()
        rows = [
            [self.ids.get(token, 1) for token in re.findall(r"\w+|[^\w\s]", text.lower())][:400]
            for text in frame["text"]
        ]
        predicted = []
        for start in range(0, len(rows), 64):
            batch = [torch.tensor(row or [1]) for row in rows[start : start + 64]]
            padded = nn.utils.rnn.pad_sequence(batch, batch_first=True)
            with torch.no_grad():
                predicted += self.classifier(padded).argmax(1).tolist()
        frame["predicted_label"] = [self.labels[i] for i in predicted]
        frame["started"], frame["ended"] = started, time.perf_counter()
        frame["worker"] = os.getpid()
        return frame


def plain_tokens_per_second(source: Path, model: Path, lengths: np.ndarray, workers: int) -> float:
    """Tokens per second of all workers while they predict, without reading and writing."""
    code = (
        "import sys, pathlib; from benchmarks.prediction import run_plain; "
        "print(run_plain(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])))"
    )
    command = [sys.executable, "-c", code, str(source), str(model), str(workers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(lengths.sum() / float(done.stdout.strip().split("\n")[-1]))


def run_plain(source: Path, model: Path, workers: int) -> float:
    """Seconds from the start of a worker's first batch to the end of its last, on average."""
    environment.prepare()
    import ray

    ray.init(address="local", num_cpus=workers + 1, log_to_driver=False, include_dashboard=False)
    with tempfile.TemporaryDirectory() as output:
        rows = ray.data.read_parquet(str(source)).repartition(8 * workers)
        labelled = rows.map_batches(
            PlainRecipe,
            fn_constructor_args=(model,),
            batch_format="pandas",
            batch_size=1024,
            compute=ray.data.ActorPoolStrategy(size=workers),
        )
        labelled.write_parquet(output)
        times = pq.read_table(output, columns=["started", "ended", "worker"]).to_pandas()
    by_worker = times.groupby("worker")
    return float((by_worker["ended"].max() - by_worker["started"].min()).mean())


def main() -> None:
    """Measure all sides in turn, several times."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", type=Path, help="a Parquet file or directory with `text`")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(Path(temporary), options.input, options.runs)
    print(json.dumps(figures))


def trained_models(directory: Path) -> tuple[Path, dict[str, Path]]:
    """Unlabelled real rows, and models trained on their corpus: with a cascade, and without."""
    corpus, models = directory / "real", {name: directory / name for name in ("on", "off")}
    build_stdlib_corpus(corpus)
    train = [sys.executable, "-m", "distlstm", "train", str(corpus / "train.parquet"), "--quiet"]
    train += ["--output", str(models["on"]), "--workers", "1"]
    subprocess.run(train, check=True, capture_output=True)
    shutil.copytree(models["on"], models["off"])
    metadata_file = models["off"] / "model.json"
    metadata = json.loads(metadata_file.read_text(encoding="utf-8"))
    metadata.pop("cascade", None)
    metadata_file.write_text(json.dumps(metadata), encoding="utf-8")
    return corpus / "unlabelled", models


def measure_cascade(directory: Path, runs: int) -> dict[str, float]:
    """The ratios with a cascade on real rows, with one worker, as medians."""
    source, models = trained_models(directory)
    texts, lengths = read_all(source), lengths_of(read_all(source), models["on"])
    plain_source, num_plain = part_of(texts, directory / "plain-real", share=PLAIN_SHARE // 4)
    found: dict[str, list[float]] = {}
    for run in range(runs):
        on, off = (
            batch_predict(source, model, directory / f"{name}{run}", 1)
            for name, model in models.items()
        )
        speed = on["tokens_per_second"]
        plain = plain_tokens_per_second(plain_source, models["on"], lengths[:num_plain], 1)
        for name, value in {
            "of_no_cascade": speed / off["tokens_per_second"],
            "with_cascade_of_bare_kernel": speed / bare_tokens_per_second(models["on"], lengths, 1),
            "with_cascade_of_plain_recipe": speed / plain,
            "partner_share": on["partner_share"],
        }.items():
            found.setdefault(name, []).append(value)
    return {name: round(statistics.median(values), 3) for name, values in found.items()}


def lengths_of(texts: pa.Array, model: Path) -> np.ndarray:
    """Number of tokens of each text for a model (int64, [rows])."""
    loaded = load_model(model)
    tokenizer = Tokenizer(loaded.config.text, loaded.vocabulary)
    return tokenizer.encode(read_texts(texts).texts).lengths


def part_of(texts: pa.Array, path: Path, *, share: int) -> tuple[Path, int]:
    """Write the first 1 / `share` of the texts to a directory; return it and its rows."""
    path.mkdir()
    rows = len(texts) // share
    pq.write_table(pa.table({"text": texts}).slice(0, rows), path / "a.parquet")
    return path, rows


def measure(directory: Path, source: Path | None, runs: int) -> dict[str, Any]:
    """All ratios, as medians."""
    source = source or made_up_input(directory)
    texts, model = read_all(source), directory / "model"
    random_model(texts, model)
    plain_source, num_plain = part_of(texts, directory / "plain", share=PLAIN_SHARE)
    lengths = lengths_of(texts, model)
    taken: dict[str, list[float]] = {}
    for run in range(runs):
        one = batch_predict(source, model, directory / f"one{run}", 1)["tokens_per_second"]
        two = batch_predict(source, model, directory / f"two{run}", 2)["tokens_per_second"]
        started = time.perf_counter()
        batch_predict(source, model, directory / f"two{run}", 2)
        nothing = time.perf_counter() - started
        bare_one = bare_tokens_per_second(model, lengths, 1)
        bare_two = bare_tokens_per_second(model, lengths, 2)
        plain = plain_tokens_per_second(plain_source, model, lengths[:num_plain], 2)
        for name, value in {
            "of_bare_kernel_one_worker": one / bare_one,
            "of_bare_kernel_two_workers": two / bare_two,
            "of_plain_recipe": two / plain,
            "two_workers_over_one": two / one,
            "seconds_with_nothing_to_do": nothing,
            "tokens_per_second_two_workers": two,
        }.items():
            taken.setdefault(name, []).append(value)
    medians = {name: round(statistics.median(values), 3) for name, values in taken.items()}
    return {
        "benchmark": "batch-predict",
        "rows": len(texts),
        "tokens_per_row": round(float(lengths.mean()), 1),
        "runs": runs,
        **medians,
        **measure_cascade(directory, runs),
    }


if __name__ == "__main__":
    main()
