"""Starts a classifier from an earlier model, with more tokens and more labels."""

import numpy as np
import pyarrow as pa

from distlstm.model.classifier import Classifier
from distlstm.model.directory import TrainedModel
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
