"""A model with random weights, and what is needed to predict with it in the tests' own process."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from distlstm.config import ExperimentConfig, ModelConfig, TextConfig, TrainingConfig
from distlstm.data.files import find_files
from distlstm.data.units import Size, Unit, cut_into_units
from distlstm.model.classifier import Classifier
from distlstm.model.directory import TrainedModel
from distlstm.stages.prediction.parts import PredictionSettings
from distlstm.stages.prediction.predictor import Predictor
from distlstm.text.labels import LabelSet
from distlstm.text.vocabulary import Vocabulary

TOKENS = ("<pad>", "<unk>", "goal", "bank", "rain", "a", "b", "c")
LABELS = ("sport", "money", "天气")
MAX_TOKENS = 5
SETTINGS = PredictionSettings(
    model="a fingerprint", text_column="text", columns=None, top_k=None, min_score=None
)
ANY_SIZE = Size(2**40, 2**40)


def model() -> TrainedModel:
    torch.manual_seed(0)
    config = ExperimentConfig(
        text=TextConfig(max_tokens=MAX_TOKENS),
        model=ModelConfig(embedding_dim=4, hidden_dim=3),
        training=TrainingConfig(precision="fp32"),
    )
    classifier = Classifier(config.model, vocab_size=len(TOKENS), num_labels=len(LABELS))
    with torch.no_grad():
        for weight in classifier.parameters():
            weight.mul_(4)  # else all scores are alike
    return TrainedModel(
        config=config,
        classifier=classifier.eval(),
        vocabulary=Vocabulary(pa.array(TOKENS)),
        labels=LabelSet(LABELS),
        temperature=1.3,
    )


def predictor() -> Predictor:
    return Predictor(model(), device=torch.device("cpu"))


def settings(**changes: Any) -> PredictionSettings:
    return replace(SETTINGS, **changes)


def units_of(path: Path, limit: Size = ANY_SIZE) -> list[Unit]:
    return cut_into_units(find_files([str(path)]), limit)


def damage_page(path: Path, *, row_group: int, column: int = 0) -> None:
    """Flip a bit in the last data page of a column, which only its checksum can tell."""
    chunk = pq.read_metadata(path).row_group(row_group).column(column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[start + chunk.total_compressed_size - 1] ^= 1
    path.write_bytes(content)
