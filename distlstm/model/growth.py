"""Starts a classifier from an earlier model, with more tokens and more labels."""

import numpy as np
import pyarrow as pa
from torch import nn

from distlstm.model.classifier import Classifier
from distlstm.model.directory import TrainedModel
from distlstm.model.language_model import DirectionStack, LanguageModel
from distlstm.model.recurrent import RecurrentLayer
from distlstm.text.labels import LabelSet

_KEPT_WHOLE = ("layers", "pooling")


def grow_from(classifier: Classifier, earlier: TrainedModel, *, labels: LabelSet) -> None:
    """Copy the weights of an earlier model into a new classifier.

    These are the embedding rows of its tokens, the output rows of its labels, and all recurrent
    layers and pooling. Rows of new tokens and labels keep their initial values.

    Args:
        classifier: a new one of the same architecture; its vocabulary begins with the tokens of
            the earlier model, in their order.
        earlier: the model to start from.
        labels: those of the classifier, which include all labels of the earlier model.
    """
    own = classifier.state_dict()  # shares its memory with the classifier
    label_ids = np.array(labels.ids_of(pa.array(earlier.labels.names, pa.string())), np.int64)
    for name, value in earlier.classifier.state_dict().items():
        module = name.partition(".")[0]
        if module == "embedding":
            own[name][: len(value)] = value
        elif module == "output":
            own[name][label_ids] = value
        elif module in _KEPT_WHOLE:
            own[name].copy_(value)


def begin_from(classifier: Classifier, language_model: LanguageModel) -> None:
    """Copy the embedding and the recurrent layers of a language model into a new classifier.

    In the second and later layers, a cell of the classifier reads the states of both directions.
    The language model's read their own direction only, so the weights of the other one become zero:
    at first, each cell computes what the language model's does.

    Args:
        classifier: a new one with the same cells and sizes; its vocabulary begins with the tokens
            of the language model, in their order.
        language_model: the model to start from.
    """
    own, learnt = classifier.embedding.weight.detach(), language_model.embedding.weight.detach()
    own[: len(learnt)] = learnt
    layers = [part for part in classifier.modules() if isinstance(part, RecurrentLayer)]
    stacks = [part for part in language_model.modules() if isinstance(part, DirectionStack)]
    for direction, stack in enumerate(stacks):
        for layer, cell in zip(layers, stack.cells, strict=True):
            _copy_cell(layer.cells[direction], cell, direction)


def _copy_cell(target: nn.Module, source: nn.Module, direction: int) -> None:
    weights = dict(target.named_parameters())
    for name, value in source.named_parameters():
        own = weights[name].detach()
        if own.shape == value.shape:
            own.copy_(value.detach())
        else:  # input weights: columns of the forward direction, then of the backward one
            width = value.shape[1]
            own.zero_()
            own[:, direction * width : (direction + 1) * width] = value.detach()
