"""Predicting a column that is in memory, as a worker predicts a file of just these rows."""

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
    """The columns that are added to these rows; the process keeps its number of threads.

    Arithmetic in bfloat16 depends, in its last digits, on the rows that go through the model
    together. So windows are cut here as `read_windows` cuts them.

    Raises:
        UserError: the column does not hold text.
    """
    if not is_text_type(column.type):
        raise UserError(f"The texts hold {column.type} values, not text.")
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
    """At least one, empty if there are no rows."""
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
