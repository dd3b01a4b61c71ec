"""Tests of distlstm.model.growth."""

import pyarrow as pa
import pytest
import torch

from distlstm.config import ExperimentConfig, ModelConfig
from distlstm.model.classifier import Classifier
from distlstm.model.directory import TrainedModel
from distlstm.model.growth import grow_from
from distlstm.text.labels import LabelSet
from distlstm.text.vocabulary import Vocabulary

TOKENS = ("<pad>", "<unk>", "goal", "bank")
TOKEN_IDS, LENGTHS = torch.tensor([[2, 3, 1], [3, 0, 0]]), torch.tensor([3, 1])


def classifier(config: ModelConfig, num_tokens: int, num_labels: int) -> Classifier:
    return Classifier(config, vocab_size=num_tokens, num_labels=num_labels).eval()


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(embedding_dim=4, hidden_dim=3),
        ModelConfig(embedding_dim=4, hidden_dim=3, cell="gru", num_layers=2),
        ModelConfig(embedding_dim=4, hidden_dim=3, pooling=("attention",), bidirectional=False),
    ],
)
def test_known_labels_have_the_same_logits_and_new_rows_their_initial_values(
    config: ModelConfig,
) -> None:
    torch.manual_seed(0)
    names = ("b", "d")
    earlier = TrainedModel(
        config=ExperimentConfig(model=config),
        classifier=classifier(config, len(TOKENS), len(names)),
        vocabulary=Vocabulary(pa.array(TOKENS)),
        labels=LabelSet(names),
        temperature=1.0,
    )
    labels = LabelSet(("a", "b", "c", "d"))
    grown = classifier(config, len(TOKENS) + 3, len(labels))
    before = {name: value.clone() for name, value in grown.state_dict().items()}
    grow_from(grown, earlier, labels=labels)
    with torch.no_grad():
        logits, expected = (model(TOKEN_IDS, LENGTHS) for model in (grown, earlier.classifier))
    torch.testing.assert_close(logits[:, [1, 3]], expected)
    after = grown.state_dict()
    assert torch.equal(after["embedding.weight"][4:], before["embedding.weight"][4:])
    assert torch.equal(after["output.weight"][[0, 2]], before["output.weight"][[0, 2]])
    assert torch.equal(after["output.bias"][[0, 2]], before["output.bias"][[0, 2]])
