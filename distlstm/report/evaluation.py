"""report.html of an evaluation: metrics, labels, confusions, and the most confident mistakes."""

from pathlib import Path
from typing import Any

from distlstm.json_text import read_json
from distlstm.report.page import Cell, Page, PageTable, Section, number, write_page
from distlstm.stages.run.files import ERRORS_FILE, METRICS_FILE, REPORT_FILE
from distlstm.stages.run.tables import read_table

_MAX_CONFUSIONS = 20
_MAX_MISTAKES = 50
_MAX_MATRIX = 20


def write_evaluation_report(path: Path) -> None:
    """(Re)write the report of an evaluation, from its `metrics.json` and `errors.parquet`."""
    report = read_json(path / METRICS_FILE)
    figures = [(name, f"{value:.4f}") for name, value in report.items() if isinstance(value, float)]
    sections = [_by_label(report), _mistakes(path)]
    if "confusion_matrix" in report:
        sections.insert(1, _confusions(report))
        if len(report["labels"]) <= _MAX_MATRIX:
            sections.insert(1, _matrix(report))
    page = Page(
        title="Evaluation",
        subtitle=f"{report['num_rows']:,} labelled rows, {len(report['labels'])} labels",
        figures=figures,
        sections=sections,
    )
    write_page(page, path / REPORT_FILE)


def _by_label(report: dict[str, Any]) -> Section:
    names = ("precision", "recall", "f1")
    rows = [
        [label, *(number(row[name], ".4f") for name in names), number(row["support"], ",d")]
        for label, row in report["per_label"].items()
    ]
    table = PageTable(header=["label", *names, "rows"], rows=rows, is_sortable=True)
    return Section(title="By label", table=table)


def _matrix(report: dict[str, Any]) -> Section:
    rows = [
        [label, *(number(count, ",d") for count in counts)]
        for label, counts in zip(report["labels"], report["confusion_matrix"], strict=True)
    ]
    table = PageTable(header=["true label, by row", *report["labels"]], rows=rows)
    text = "Rows are true labels, columns predicted labels."
    return Section(title="Confusion matrix", text=text, table=table)


def _confusions(report: dict[str, Any]) -> Section:
    labels = report["labels"]
    pairs = [
        (count, labels[i], labels[j])
        for i, counts in enumerate(report["confusion_matrix"])
        for j, count in enumerate(counts)
        if i != j and count
    ]
    rows: list[list[Cell]] = [
        [truth, predicted, number(count, ",d")]
        for count, truth, predicted in sorted(pairs, reverse=True)[:_MAX_CONFUSIONS]
    ]
    table = PageTable(header=["true label", "predicted as", "rows"], rows=rows)
    return Section(title="Most frequent confusions", table=table)


def _shown(value: object) -> Cell:
    """The cell of a label, a set of labels or a score."""
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return number(value, ".3f") if isinstance(value, float) else str(value)


def _mistakes(path: Path) -> Section:
    errors = read_table(path / ERRORS_FILE).slice(0, _MAX_MISTAKES).to_pylist()
    rows = []
    for row in errors:
        del row["file"]
        rows.append([row.pop("text")[:400], *map(_shown, row.values())])
    table = PageTable(header=["text", "true label", "predicted label", "score"], rows=rows)
    text = "Often the true label given here is wrong, or the text fits several labels."
    return Section(title="Most confident mistakes", text=text, table=table)
