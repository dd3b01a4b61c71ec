"""`distlstm predict`: a few texts, in this process, without Ray."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from distlstm.stages.prediction.part_content import label_set_columns
from distlstm.stages.prediction.predictor import Predictor

_TEXTS_AT_ONCE = 256


def predict_texts(texts: Iterable[str], *, model: Path) -> Iterator[dict[str, Any]]:
    """One row per text, in order: text, predicted_label, predicted_score.

    A model of label sets gives the lists predicted_labels and predicted_scores instead.

    Raises:
        UserError: the directory is no model, or damaged.
    """
    predictor = Predictor.load(model, num_threads=1, use_gpu=False)
    names = predictor.model.labels.names
    label_names = pa.array(names, pa.string())
    pending = iter(texts)
    while chunk := list(islice(pending, _TEXTS_AT_ONCE)):
        predictions = predictor(pa.array(chunk, pa.string()))
        if predictor.model.kind.name == "multi":
            columns = label_set_columns(predictions, label_names, predictor.model.kind)
            yield from pa.table({"text": chunk, **columns}).to_pylist()
            continue
        for text, known, probabilities in zip(
            chunk, predictions.has_text, predictions.probabilities, strict=True
        ):
            best = int(probabilities.argmax())
            yield {
                "text": text,
                "predicted_label": names[best] if known else None,
                "predicted_score": round(float(probabilities[best]), 6) if known else None,
            }
