"""report.html of a MODEL directory: how it was trained and how good it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distlstm.model.directory import load_facts
from distlstm.report.charts import line_chart
from distlstm.report.page import REPORT_FILE, Page, PageTable, Section, write_page
from distlstm.stages.finish import HISTORY_FILE, read_history


def write_model_report(path: Path) -> None:
    """(Re)write the report of a model, from its `model.json` and `history.parquet`."""
    facts, history = load_facts(path), read_history(path / HISTORY_FILE)
    metrics, corpus = facts["metrics"], facts["corpus"]
    page = Page(
        title=f"Model {path.absolute().name}",
        subtitle=f"{len(facts['labels'])} labels, {facts['vocabulary_size']:,} tokens known, "
        f"trained on {corpus['num_training']:,} rows, judged on {metrics['num_rows']:,} held out",
        figures=[
            ("accuracy", f"{metrics['accuracy']:.4f}"),
            ("macro-F1", f"{metrics['macro_f1']:.4f}"),
            ("log loss", f"{metrics['log_loss']:.4f}"),
            ("calibration error", f"{metrics['ece']:.4f}"),
        ],
        sections=[
            _comparison(facts),
            _curves(history),
            _corpus(corpus),
            _settings(facts),
        ],
    )
    write_page(page, path / REPORT_FILE)


def _comparison(facts: Mapping[str, Any]) -> Section:
    own, baseline = facts["metrics"], facts["baseline"]
    rows = {
        "this model": own,
        f"its {facts['model']['cell'].upper()} alone": baseline["recurrent"],
        "linear model of n-grams": baseline["linear"],
        "always the most frequent label": baseline["majority"],
    }
    beaten = own["accuracy"] > baseline["linear"]["accuracy"]
    verdict = "" if beaten else "The linear model is as good or better on this data."
    if "cascade" in facts:
        share = facts["cascade"]["share"]
        verdict += f" {share:.1%} of these rows are answered by the linear model alone."
    names = ("accuracy", "macro_f1", "weighted_f1", "mcc")
    table = PageTable(
        header=["on the validation rows", *names],
        rows=[[name, *(f"{row[key]:.4f}" for key in names)] for name, row in rows.items()],
    )
    return Section(title="Against simpler models", text=verdict.strip(), table=table)


def _curves(history: Sequence[Mapping[str, Any]]) -> Section:
    names = {"training_loss": "training loss", "validation_log_loss": "validation loss"}
    names |= {"validation_accuracy": "accuracy", "validation_macro_f1": "macro-F1"}
    lines = {title: [(row["epoch"], row[key]) for row in history] for key, title in names.items()}
    best = max(row["epoch"] for row in history if row["is_best"])
    text = f"{len(history)} epochs; the weights of epoch {best} were kept."
    return Section(
        title="Learning curves", text=text, chart=line_chart(lines, label="figures by epoch")
    )


def _corpus(corpus: Mapping[str, Any]) -> Section:
    counts = sorted(corpus["label_counts"].items(), key=lambda item: -item[1])
    left_out = ", ".join(f"{count:,} {why}" for why, count in corpus["dropped"].items())
    text = (
        f"{corpus['num_tokens']:,} tokens, {corpus['unknown_share']:.1%} of them unknown; "
        f"{corpus['truncated_share']:.1%} of the rows cut short. "
        + (f"Rows left out: {left_out}." if left_out else "No row was left out.")
    )
    rows = [[label, f"{count:,}"] for label, count in counts]
    return Section(
        title="Training rows", text=text, table=PageTable(header=["label", "rows"], rows=rows)
    )


def _settings(facts: Mapping[str, Any]) -> Section:
    rows = [
        [f"{section}.{name}", str(value)]
        for section in ("text", "model", "training")
        for name, value in facts[section].items()
    ]
    rows.append(["seed", str(facts["seed"])])
    table = PageTable(header=["setting", "value"], rows=rows)
    return Section(title="Configuration", table=table)
