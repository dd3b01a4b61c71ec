"""_report.html of a PREDICTIONS directory: the predictions, compared with the training data.

Its name begins with `_`, so that readers of the directory skip it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distlstm.report.axes import Numbers
from distlstm.report.bar_chart import Bar, bar_chart
from distlstm.report.histogram_chart import histogram_chart
from distlstm.report.page import Cell, Page, PageTable, Section, number, write_page
from distlstm.stages.prediction.manifest import read_manifest
from distlstm.stages.run.files import PREDICTION_REPORT_FILE, SUCCESS_FILE
from distlstm.storage import LocalStorage

_MOST_BARS, _MOST_PARTS = 40, 1_000


def write_prediction_report(path: Path) -> None:
    """(Re)write the report of a prediction run, from its `_manifest.json`.

    Raises:
        UserError: there is no manifest, or it is damaged.
    """
    manifest = read_manifest(LocalStorage(path))
    sections = [
        _errors(path, manifest),
        _without_prediction(manifest),
        _labels(manifest),
        _scores(manifest),
        _drift(manifest["drift"]),
        _settings(manifest),
        _parts(manifest["parts"]),
    ]
    page = Page(
        title=f"Predictions {path.absolute().name}",
        subtitle=f"{manifest['rows_out']:,} rows out of {manifest['rows_in']:,} rows in, "
        f"in {len(manifest['parts']):,} parts",
        figures=_figures(manifest),
        sections=[section for section in sections if section is not None],
    )
    write_page(page, path / PREDICTION_REPORT_FILE)


def _figures(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    missing = sum(manifest["rows_without_prediction"].values())
    return [
        ("rows without a prediction", f"{missing:,}"),
        ("labels predicted", f"{len(manifest['label_counts']):,}"),
        ("tokens", f"{manifest['num_tokens']:,}"),
        ("tokens unknown", f"{manifest['unknown_share']:.1%}"),
        ("rows cut short", f"{manifest['truncated_share']:.1%}"),
    ]


def _errors(path: Path, manifest: Mapping[str, Any]) -> Section | None:
    errors = manifest["run"]["errors"]
    if not errors and (path / SUCCESS_FILE).exists():
        return None
    text = "The last run did not finish. Run the same command again; finished parts are kept."
    rows = [[error] for error in errors]
    table = PageTable(header=["error"], rows=rows) if errors else None
    return Section(title="Not finished", text=text, table=table)


def _without_prediction(manifest: Mapping[str, Any]) -> Section | None:
    reasons = manifest["rows_without_prediction"]
    if not reasons:
        return None
    rows: list[list[Cell]] = [
        [reason, number(count, ",d"), number(count / max(1, manifest["rows_out"]), ".2%")]
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
    ]
    table = PageTable(header=["text", "rows", "share of all"], rows=rows)
    return Section(title="Rows without a prediction", table=table)


def _labels(manifest: Mapping[str, Any]) -> Section | None:
    counts = sorted(manifest["label_counts"].items(), key=lambda item: -item[1])
    if not counts:
        return None
    before = (manifest["drift"] or {}).get("label_counts_in_training", {})
    total, total_before = sum(count for _, count in counts), sum(before.values())
    bars = [
        Bar(
            name=label,
            value=count,
            text=_compared(count / total, before.get(label, 0), total_before),
        )
        for label, count in counts[:_MOST_BARS]
    ]
    more = f" Only the {_MOST_BARS} most frequent of {len(counts):,} labels are shown."
    beside = " In brackets: share of the training rows." if total_before else ""
    return Section(
        title="Predicted labels",
        text=f"Share of the rows.{beside}{more * (len(counts) > _MOST_BARS)}",
        chart=bar_chart(bars, label="share of the rows by predicted label"),
    )


def _compared(share: float, count_before: int, total_before: int) -> str:
    return f"{share:.1%}" + (f" ({count_before / total_before:.1%})" if total_before else "")


def _scores(manifest: Mapping[str, Any]) -> Section | None:
    counts: Sequence[int] = manifest["score_histogram"]
    if not sum(counts):
        return None
    beside = (manifest["drift"] or {}).get("validation_score_histogram", [])
    text = "Rows by the score of their predicted label."
    if beside:
        text += " The line shows the validation rows of the model's training."
    return Section(
        title="Scores",
        text=text,
        chart=histogram_chart(
            counts,
            beside=beside,
            x=Numbers(title="score of the predicted label", low=0, high=1),
            y_title="share of the rows",
            label="share of the rows by score",
        ),
    )


def _drift(drift: Mapping[str, Any] | None) -> Section | None:
    if drift is None:
        return None
    rows: list[list[Cell]] = [
        [what, number(drift[name], ".2%"), number(drift[f"{name}_in_training"], ".2%")]
        for what, name in (
            ("tokens unknown", "unknown_share"),
            ("rows cut short", "truncated_share"),
        )
    ]
    text = (
        f"Total variation distance, from 0 (equal) to 1: {drift['labels_moved']:.2f} between these "
        f"labels and those of the training rows, {drift['scores_moved']:.2f} between these scores "
        "and those of the validation rows."
    )
    table = PageTable(header=["", "here", "in training"], rows=rows)
    return Section(title="Against training", text=text, table=table)


def _settings(manifest: Mapping[str, Any]) -> Section:
    rows = [[name, str(value)] for name, value in manifest["settings"].items()]
    rows.append(["inputs", ", ".join(manifest["run"]["inputs"])])
    return Section(title="Settings", table=PageTable(header=["setting", "value"], rows=rows))


def _parts(parts: Sequence[Mapping[str, Any]]) -> Section:
    rows: list[list[Cell]] = [
        [
            part["name"],
            part["input"],
            number(part["rows_out"], ",d"),
            number(sum(part["rows_without_prediction"].values()), ",d"),
        ]
        for part in parts[:_MOST_PARTS]
    ]
    header = ["part", "input", "rows", "without a prediction"]
    more = f"The first {_MOST_PARTS:,} of {len(parts):,} parts; _manifest.json lists all."
    return Section(
        title="Parts",
        text=more if len(parts) > _MOST_PARTS else "",
        table=PageTable(header=header, rows=rows, is_sortable=True),
    )
