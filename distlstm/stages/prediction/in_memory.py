"""Predicts a column in memory, with the same results as for a file with exactly these rows."""

from collections.abc import Iterator

import pyarrow as pa
import torch

from distlstm.data.reading import BATCH_ROWS
from distlstm.errors import UserError
from distlstm.stages.prediction.part_content import prediction_columns
from distlstm.stages.prediction.predictor import Predictor, rows_at_once
from distlstm.stages.prediction.windows import WINDOW_BYTES, WINDOW_ROWS
from distlstm.text.columns import is_text_type, read_texts


def predict_column(
    predictor: Predictor, column: pa.Array, *, top_k: int | None, min_score: float | None
) -> pa.Table:
    """The prediction columns of these rows. The process keeps its number of torch threads.

    On a GPU, the last digits depend on which rows go through the model together. So the rows are
    cut into the same windows as in `read_windows`.

    Raises:
        UserError: the column is not text.
    """
    if not is_text_type(column.type):
        raise UserError(f"The texts have type {column.type}, not text.")
    model = predictor.model
    names = pa.array(model.labels.names, pa.string())
    threads = torch.get_num_threads()
    try:
        tables = [
            pa.table(
                prediction_columns(
                    predictor(texts), names, model.kind, top_k=top_k, min_score=min_score
                )
            )
            for texts in _windows(read_texts(column).texts, len(names))
        ]
    finally:
        torch.set_num_threads(threads)
    return pa.concat_tables(tables).combine_chunks()


def _windows(texts: pa.Array, num_labels: int) -> Iterator[pa.Array]:
    """At least one window, which is empty if there are no rows."""
    max_rows = min(WINDOW_ROWS, rows_at_once(num_labels))
    start = 0
    while start < max(1, len(texts)):
        end = start
        while end < len(texts) and end - start < max_rows:
            if texts.slice(start, end - start).nbytes >= WINDOW_BYTES:
                break
            end = min(len(texts), end + BATCH_ROWS)
        yield texts.slice(start, end - start)
        start = max(end, start + 1)
