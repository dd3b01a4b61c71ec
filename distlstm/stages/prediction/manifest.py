"""`_manifest.json`: the content of a prediction output, compared with the training data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distlstm.data.units import Size
from distlstm.errors import UserError
from distlstm.json_text import parse_json, to_json
from distlstm.stages.prediction.parts import Parts, PredictionSettings, plain
from distlstm.stages.run.files import MANIFEST_FILE
from distlstm.storage import Directory, UnreachableError

IN_MANIFEST = ("name", "input", "unit", "rows_in", "rows_out", "rows_without_prediction")
_PARTS = ' "parts": ['
"""The line that ends the head of a manifest."""
_HEAD_BYTES, _LARGEST_HEAD = 2**16, 2**28


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over parts."""

    rows_in: int
    rows_out: int
    rows_without_prediction: dict[str, int]
    """Number of rows by reason."""
    label_counts: dict[str, int]
    score_histogram: list[int]
    num_tokens: int
    unknown_share: float
    """Share of the tokens."""
    truncated_share: float
    """Share of the rows."""
    partner_share: float
    """Share of the rows that the linear model answered alone."""


def totals_of(parts: Parts) -> Totals:
    """The sums over parts, and the shares that follow from them."""
    reasons, sums = Counter[str](), parts.sums
    for part in parts:
        reasons.update(part.rows_without_prediction)
    rows_out = sum(part.rows_out for part in parts)
    return Totals(
        rows_in=sum(part.rows_in for part in parts),
        rows_out=rows_out,
        rows_without_prediction=dict(reasons),
        label_counts=dict(sums.label_counts),
        score_histogram=sums.score_histogram,
        num_tokens=sums.num_tokens,
        unknown_share=sums.num_unknown / max(1, sums.num_tokens),
        truncated_share=sums.num_truncated / max(1, rows_out),
        partner_share=sums.num_by_partner / max(1, rows_out),
    )


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How much the predicted rows differ from those the model was trained on."""

    unknown_share: float
    unknown_share_in_training: float
    truncated_share: float
    truncated_share_in_training: float
    labels_moved: float
    """Total variation distance, from 0 to 1, between the predicted labels and the true labels of
    the training rows: the share of rows that need another label to make both distributions equal.
    """
    scores_moved: float
    """The same distance between these scores and those of the validation rows, in 20 bins."""
    label_counts_in_training: dict[str, int]
    validation_score_histogram: list[int]

    def __str__(self) -> str:
        """The figures as a sentence."""
        return (
            f"Compared with training: {self.unknown_share:.1%} of the tokens unknown "
            f"({self.unknown_share_in_training:.1%}), {self.truncated_share:.1%} of the rows cut "
            f"short ({self.truncated_share_in_training:.1%}); label distribution shifted by "
            f"{self.labels_moved:.2f}, score distribution by {self.scores_moved:.2f} "
            "(0: identical, 1: disjoint)."
        )


def drift_of(totals: Totals, model_metadata: Mapping[str, Any]) -> Drift | None:
    """Compare a run with `model.json`; None if one of the two has no figures."""
    corpus = model_metadata.get("corpus", {})
    in_training = corpus.get("label_counts", {})
    validation_scores = model_metadata.get("validation_score_histogram", [])
    if not sum(totals.label_counts.values()) or not in_training or not sum(validation_scores):
        return None
    labels = sorted(totals.label_counts.keys() | in_training.keys())
    return Drift(
        unknown_share=totals.unknown_share,
        unknown_share_in_training=corpus["unknown_share"],
        truncated_share=totals.truncated_share,
        truncated_share_in_training=corpus["truncated_share"],
        labels_moved=_distance(
            [totals.label_counts.get(name, 0) for name in labels],
            [in_training.get(name, 0) for name in labels],
        ),
        scores_moved=_distance(totals.score_histogram, validation_scores),
        label_counts_in_training=dict(in_training),
        validation_score_histogram=list(validation_scores),
    )


def _distance(first: Sequence[int], second: Sequence[int]) -> float:
    """Total variation distance between two distributions, which are given as counts."""
    shares = [np.array(counts) / max(1, sum(counts)) for counts in (first, second)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The last command that worked on an output."""

    inputs: tuple[str, ...]
    parts_written: int = 0
    parts_reused: int = 0
    errors: tuple[str, ...] = ()


def write_manifest(
    output: Directory,
    settings: PredictionSettings,
    parts: Parts,
    run: Run,
    limit: Size,
    drift: Drift | None = None,
) -> None:
    """Write the manifest, with one line per part, by name."""
    head = {
        "settings": plain(settings),
        "unit_limit": asdict(limit),
        "run": asdict(run),
        **asdict(totals_of(parts)),
        "drift": None if drift is None else asdict(drift),
    }
    lines = [f" {_json(key)}: {_json(value)}," for key, value in head.items()]
    by_name = sorted(parts, key=lambda part: part.name)
    listed = [_json({name: getattr(part, name) for name in IN_MANIFEST}) for part in by_name]
    table = ",\n".join(f"  {row}" for row in listed)
    text = "\n".join(["{", *lines, _PARTS, *([table] if table else []), " ]", "}"])
    output.write(MANIFEST_FILE, text + "\n")


def read_manifest(output: Directory) -> dict[str, Any]:
    """Read the manifest of an output.

    Raises:
        UserError: it is missing or damaged.
        UnreachableError: the object store did not answer.
    """
    path = output.at(MANIFEST_FILE)
    try:
        manifest = parse_json(output.read(MANIFEST_FILE))
        if {"settings", "unit_limit", "run", "rows_in", "rows_out", "parts"} <= manifest.keys():
            return dict(manifest)
    except FileNotFoundError as error:
        raise UserError(
            f"{output.location} is not an output of batch-predict: it has no {MANIFEST_FILE}."
        ) from error
    except UnreachableError:
        raise
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    raise UserError(f"{path} is damaged. Run batch-predict again; finished parts are kept.")


def read_head(output: Directory) -> dict[str, Any]:
    """Read a manifest without its parts, of which there may be very many.

    Raises:
        OSError: it is missing, or cannot be read.
        ValueError: it is damaged.
    """
    size, wanted = output.entry(MANIFEST_FILE).size, _HEAD_BYTES
    while True:
        content = output.read_range(MANIFEST_FILE, 0, min(size, wanted))
        head, found, _ = content.partition(f"\n{_PARTS}".encode())
        if found:
            return dict(parse_json(head.removesuffix(b",") + b"}"))
        if wanted >= min(size, _LARGEST_HEAD):
            raise ValueError("it has no list of parts")
        wanted *= 8


def recorded_limit(output: Directory) -> Size | None:
    """The unit size limit of earlier runs, which later runs reuse; None if none is recorded."""
    try:
        return Size(**read_manifest(output)["unit_limit"])
    except (UserError, TypeError):
        return None


def _json(value: Any) -> str:
    return to_json(value)
