"""A model with random weights, of English and Chinese words, with a linear half and a cascade."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from distlstm.config import ExperimentConfig, ModelConfig, TrainingConfig
from distlstm.model.cascade import Cascade
from distlstm.model.classifier import Classifier
from distlstm.model.directory import TrainedModel, save_model
from distlstm.model.label_sets import LabelSets
from distlstm.model.linear import LinearModel
from distlstm.model.ngrams import NgramFeatures
from distlstm.text.labels import LabelSet
from distlstm.text.vocabulary import Vocabulary
from tests.conftest import WORDS

LABELS = ("sport", "money", "天气")
_TOKENS = ("<pad>", "<unk>", *(word for some in WORDS.values() for word in some if word.isascii()))
_TOKENS += tuple("今天下雨晴朗温度大风阴")


def made(seed: int = 0, *, with_linear: bool = True, gives_sets: bool = False) -> TrainedModel:
    torch.manual_seed(seed)
    config = ExperimentConfig(
        model=ModelConfig(embedding_dim=16, hidden_dim=24), training=TrainingConfig()
    )
    classifier = Classifier(config.model, vocab_size=len(_TOKENS), num_labels=len(LABELS))
    with torch.no_grad():
        for weight in classifier.parameters():
            weight.mul_(3)  # else all scores are alike
    features = NgramFeatures(np.zeros(0, np.int32), np.ones(len(_TOKENS), np.float32))
    linear = LinearModel(features, torch.randn(len(_TOKENS), len(LABELS)), torch.zeros(3))
    single = with_linear and not gives_sets
    return TrainedModel(
        config=config,
        classifier=classifier.eval(),
        vocabulary=Vocabulary(pa.array(_TOKENS)),
        labels=LabelSet(LABELS),
        temperature=1.3,
        linear=linear if with_linear else None,
        cascade=Cascade(lead=1.5, temperature=1.2, share=0.3) if single else None,
        metadata={
            "metrics": {"accuracy": 0.9},
            "corpus": {"columns": {"text": "text", "label": "label"}},
        },
    )


def sets_model() -> TrainedModel:
    return replace(made(gives_sets=True), kind=LabelSets((0.2, 0.5, 0.9)))


def saved(path: Path, model: TrainedModel) -> Path:
    save_model(model, path)
    return path


def ragged_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of very different lengths, in both languages, some blank or of unknown words."""
    rng = np.random.default_rng(seed)
    words = [*_TOKENS[2:], "unheard", "ｆｕｌｌ"]
    texts = []
    for length in rng.geometric(0.08, count):
        chosen = rng.choice(words, length)
        texts.append(("" if rng.random() < 0.3 else " ").join(chosen))
    return [*texts, "", "  ", " ".join(["goal"] * 700)]
