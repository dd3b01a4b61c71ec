"""report.html of a MODEL directory: its quality and its training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from distlstm.model.metadata import is_language_model, read_metadata
from distlstm.report.axes import numbers
from distlstm.report.line_chart import Line, line_chart
from distlstm.report.page import Page, PageTable, Section, number, write_page
from distlstm.report.svg import colour
from distlstm.stages.run.files import HISTORY_FILE, REPORT_FILE
from distlstm.stages.training.history import read_history


def write_model_report(path: Path, metadata: Mapping[str, Any] | None = None) -> None:
    """(Re)write the report of a model, from its `model.json` and `history.parquet`.

    The metadata is read if it is not given. The model may be a language model.
    """
    metadata = read_metadata(path) if metadata is None else metadata
    history = read_history(path / HISTORY_FILE)
    if is_language_model(metadata):
        write_page(_language_page(path, metadata, history), path / REPORT_FILE)
        return
    metrics, corpus = metadata["metrics"], metadata["corpus"]
    page = Page(
        title=f"Model {path.absolute().name}",
        subtitle=f"{len(metadata['labels'])} labels, a vocabulary of "
        f"{metadata['vocabulary_size']:,} tokens, trained on {corpus['num_training']:,} rows, "
        f"evaluated on {metrics['num_rows']:,} validation rows",
        figures=[
            ("accuracy", f"{metrics['accuracy']:.4f}"),
            ("macro-F1", f"{metrics['macro_f1']:.4f}"),
            ("log loss", f"{metrics['log_loss']:.4f}"),
            ("calibration error", f"{metrics['ece']:.4f}"),
        ],
        sections=[
            _comparison(metadata),
            *_curves(history),
            *_language_model(metadata),
            _corpus(corpus),
            _settings(metadata, ("text", "model", "training")),
        ],
    )
    write_page(page, path / REPORT_FILE)


def _language_page(
    path: Path, metadata: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> Page:
    corpus, metrics = metadata["corpus"], metadata["metrics"]
    left_out = ", ".join(f"{count:,} {why}" for why, count in corpus["dropped"].items())
    texts = (
        f"{corpus['unknown_share']:.1%} of the tokens are unknown; "
        f"{corpus['truncated_share']:.1%} of the rows were cut short. "
        + (f"Rows left out: {left_out}." if left_out else "No row was left out.")
    )
    return Page(
        title=f"Language model {path.absolute().name}",
        subtitle=f"a vocabulary of {metadata['vocabulary_size']:,} tokens, trained on "
        f"{corpus['num_training']:,} rows of text with {corpus['num_tokens']:,} tokens",
        figures=[
            ("perplexity", f"{metrics['perplexity']:,.1f}"),
            ("loss of a token", f"{metrics['log_loss']:.4f}"),
            ("epochs", f"{len(history)}"),
        ],
        sections=[
            _perplexity(history, f"{len(history)} epochs, the best was {metadata['best_epoch']}."),
            Section(title="Texts", text=texts),
            _settings(metadata, ("text", "model", "pretraining")),
        ],
    )


def _perplexity(history: Sequence[Mapping[str, Any]], text: str) -> Section:
    """The chart of a language model's training."""
    meaning = (
        "The perplexity is among how many equally probable tokens the model would choose the next "
        "one; lower is better."
    )
    chart = _chart(history, {"perplexity": "perplexity"}, title="on held-out rows")
    return Section(title="Perplexity by epoch", text=f"{meaning} {text}", chart=chart)


def _language_model(metadata: Mapping[str, Any]) -> list[Section]:
    """The language model from which the training began, if it did."""
    found = metadata.get("language_model")
    if found is None:
        return []
    text = (
        f"This model began with a language model of {found['num_rows']:,} rows "
        f"({found['num_tokens']:,} tokens), whose perplexity is {found['perplexity']:,.1f}."
    )
    return [_perplexity(found["history"], text)]


def _comparison(metadata: Mapping[str, Any]) -> Section:
    own, baseline = metadata["metrics"], metadata["baseline"]
    rows = {
        "this model": own,
        f"its {metadata['model']['cell'].upper()} alone": baseline["recurrent"],
        "linear model of n-grams": baseline["linear"],
        "always the most frequent label": baseline["majority"],
    }
    beaten = own["accuracy"] > baseline["linear"]["accuracy"]
    verdict = "" if beaten else "The linear model alone is at least as accurate on this data."
    if "cascade" in metadata:
        share = metadata["cascade"]["share"]
        verdict += f" The linear model answers {share:.1%} of these rows alone (early exit)."
    names = ("accuracy", "macro_f1", "weighted_f1", "mcc")
    table = PageTable(
        header=["on the validation rows", *names],
        rows=[[name, *(number(row[key], ".4f") for key in names)] for name, row in rows.items()],
    )
    return Section(title="Against simpler models", text=verdict.strip(), table=table)


def _curves(history: Sequence[Mapping[str, Any]]) -> list[Section]:
    losses = {"training_loss": "training loss", "validation_log_loss": "validation loss"}
    quality = {"validation_accuracy": "accuracy", "validation_macro_f1": "macro-F1"}
    best = max(row["epoch"] for row in history if row["is_best"])
    text = f"{len(history)} epochs; the model has the weights of epoch {best}."
    return [
        Section(
            title="Loss by epoch", text=text, chart=_chart(history, losses, title="loss (nats)")
        ),
        Section(title="Quality by epoch", chart=_chart(history, quality, title="on validation")),
    ]


def _chart(
    history: Sequence[Mapping[str, Any]], names: Mapping[str, str], *, title: str
) -> Markup | None:
    """A line for each named column, through its finite values."""
    lines = []
    for i, (key, name) in enumerate(names.items()):
        points = [(row["epoch"], row[key]) for row in history if math.isfinite(row[key])]
        if points:
            lines.append(Line(points=points, style=f"{colour(i)} thick", end="dot", name=name))
    values = [value for line in lines for _, value in line.points]
    if not values:
        return None
    return line_chart(
        lines,
        x=numbers([1, len(history)], title="epoch", is_log=False, is_whole=True),
        y=numbers(values, title=title, is_log=False),
        label=f"{', '.join(names.values())} by epoch",
    )


def _corpus(corpus: Mapping[str, Any]) -> Section:
    counts = sorted(corpus["label_counts"].items(), key=lambda item: -item[1])
    left_out = ", ".join(f"{count:,} {why}" for why, count in corpus["dropped"].items())
    text = (
        f"{corpus['num_tokens']:,} tokens, {corpus['unknown_share']:.1%} of them unknown; "
        f"{corpus['truncated_share']:.1%} of the rows cut short. "
        + (f"Rows left out: {left_out}." if left_out else "No row was left out.")
    )
    rows = [[label, number(count, ",d")] for label, count in counts]
    table = PageTable(header=["label", "rows"], rows=rows, is_sortable=True)
    return Section(title="Training rows", text=text, table=table)


def _settings(metadata: Mapping[str, Any], sections: Sequence[str]) -> Section:
    rows = [
        [f"{section}.{name}", str(value)]
        for section in sections
        for name, value in metadata[section].items()
    ]
    rows.append(["seed", str(metadata["seed"])])
    table = PageTable(header=["setting", "value"], rows=rows)
    return Section(title="Configuration", table=table)
