"""`load_model` and `Model.predict`: a model applied in this process, without Ray."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from distlstm.api.arguments import AnyPath, check_cut
from distlstm.errors import UserError
from distlstm.stages.run.results import MAX_ROWS, Result, TextTable
from distlstm.storage.location import on_disk

if TYPE_CHECKING:  # each takes a while to import
    import pandas as pd
    import pyarrow as pa

    from distlstm.config import ExperimentConfig
    from distlstm.stages.prediction.predictor import Predictor

Texts: TypeAlias = (
    "Sequence[str | None] | pa.Array | pa.ChunkedArray | pa.Table | pd.Series | pd.DataFrame"
)


@dataclass(frozen=True)
class Predictions(Result):
    """The columns that `batch_predict` adds, for the rows of one call of `Model.predict`."""

    table: "pa.Table"
    """`predicted_label` and `predicted_score`, null where a row has no text; with `top_k`, and of
    a model of label sets, the lists `predicted_labels` and `predicted_scores`."""
    index: Any = None
    """Of the pandas object that was given."""

    @property
    def labels(self) -> list[Any]:
        """Each row's label, or its list of labels; None where there is no text."""
        return list(self.table.column(0).to_pylist())

    @property
    def scores(self) -> list[Any]:
        """Each row's score, or its list of scores."""
        return list(self.table.column(1).to_pylist())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each row, by column name."""
        return iter(self.table.to_pylist())

    def to_pandas(self) -> "pd.DataFrame":
        """A data frame, with the index of the series or data frame that was given."""
        frame = self.table.to_pandas()
        return frame if self.index is None else frame.set_axis(self.index, axis="index")

    def to_json(self) -> dict[str, Any]:
        """A list of values for each column."""
        return dict(self.table.to_pydict())

    def as_table(self) -> TextTable:
        """The columns as they are."""
        rows = self.table.slice(0, MAX_ROWS).to_pylist()
        cells = [["" if v is None else str(v) for v in row.values()] for row in rows]
        return TextTable(self.table.column_names, cells, len(self) - len(cells))


class Model(Result):
    """A trained classifier, ready to be applied; made by `load_model`."""

    def __init__(self, path: Path, predictor: "Predictor", text_column: str) -> None:
        self.path = path
        self.text_column = text_column
        """The column of tables and data frames that `predict` reads."""
        self._predictor = predictor

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it tells apart."""
        return self._predictor.model.labels.names

    @property
    def metrics(self) -> dict[str, float]:
        """Of its validation rows."""
        return dict(self._predictor.model.metadata["metrics"])

    @property
    def config(self) -> "ExperimentConfig":
        """With which it was trained."""
        return self._predictor.model.config

    @property
    def fingerprint(self) -> str:
        """Of all that decides its answers; the parts of `batch_predict` record it."""
        return self._predictor.model.fingerprint

    def predict(
        self,
        texts: Texts,
        *,
        text_column: str | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
    ) -> Predictions:
        """Classify texts: bit for bit what `batch_predict` writes for a file of these rows.

        >>> model = distlstm.load_model("model")
        >>> predictions = model.predict(["goal team league", "bank market price", None])
        >>> predictions.labels
        ['sport', 'money', None]

        Args:
            texts: a list of texts, an Arrow array or table, or a pandas Series or DataFrame.
            text_column: of a table or data frame [default: the one trained on].
            top_k: also give the K most probable labels.
            min_score: leave the label null below this score.

        Raises:
            UserError: a value is no text, or there is no such column.
        """
        from distlstm.stages.prediction.in_memory import predict_column
        from distlstm.stages.prediction.parts import refuse_cut

        kind = self._predictor.model.kind
        refuse_cut(label_sets=kind.gives_sets, top_k=top_k, min_score=min_score)
        check_cut(top_k=top_k, min_score=min_score)
        column = _column(texts, text_column or self.text_column)
        table = predict_column(self._predictor, column, top_k=top_k, min_score=min_score)
        return Predictions(table, getattr(texts, "index", None) if _is_pandas(texts) else None)

    def to_json(self) -> dict[str, Any]:
        """Path, labels and metrics."""
        return {"path": str(self.path), "labels": list(self.labels), "metrics": self.metrics}

    def as_table(self) -> TextTable:
        """Path, number of labels, and metrics."""
        shown = {
            "model": str(self.path),
            "labels": f"{len(self.labels)}: {', '.join(self.labels[:5])}",
            **{name: f"{value:,.4f}" for name, value in self.metrics.items()},
        }
        return TextTable(["", "value"], [list(pair) for pair in shown.items()])

    def __repr__(self) -> str:
        return f"<distlstm.Model {self.path}, {len(self.labels)} labels>"


def load_model(path: AnyPath, *, gpu: bool = False, num_threads: int = 1) -> Model:
    """Load a MODEL directory, to classify texts in this process, without Ray.

    >>> distlstm.load_model("model").labels
    ('money', 'sport', '天气')

    Args:
        path: a MODEL directory; one from a stranger is safe to load.
        gpu: compute on the GPU.
        num_threads: threads to compute with, as `cpus_per_worker` of `batch_predict`.

    Raises:
        UserError: the directory is no model, of another format version, or damaged.
    """
    from distlstm.model.metadata import load_metadata
    from distlstm.stages.prediction.input import trained_on
    from distlstm.stages.prediction.predictor import Predictor

    if num_threads < 1:
        raise UserError(f"num_threads is {num_threads}; it must be at least 1.")
    directory = on_disk(path)
    metadata = load_metadata(directory)
    predictor = Predictor.load(directory, metadata, num_threads=num_threads, use_gpu=gpu)
    return Model(directory, predictor, trained_on(metadata).text)


def _is_pandas(texts: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "pandas" for kind in type(texts).__mro__)


def _column(texts: Any, name: str) -> "pa.Array":
    """The texts as one Arrow array of whatever type they have."""
    import pyarrow as pa

    if isinstance(texts, str | bytes):
        raise UserError("predict takes a list of texts; put a single text into a list.")
    if isinstance(texts, Mapping | Set):
        raise UserError(f"predict takes a list of texts or a table, not a {type(texts).__name__}.")
    if isinstance(texts, pa.Table | pa.RecordBatch) or hasattr(texts, "columns"):
        names = list(texts.column_names if hasattr(texts, "column_names") else texts.columns)
        if names.count(name) != 1:
            known = ", ".join(map(str, names)) or "none"
            found = "No column" if name not in names else "More than one column"
            raise UserError(f"{found} {name!r} in the table. It has: {known}.")
        texts = texts[name]
    try:
        is_arrow = isinstance(texts, pa.Array | pa.ChunkedArray)
        array = texts if is_arrow else pa.array(texts, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UserError(f"One of the texts is no text: {error}.") from error
    if isinstance(array, pa.ChunkedArray):  # of pandas, too
        return pa.concat_arrays([pa.array([], array.type), *array.chunks])
    return array
