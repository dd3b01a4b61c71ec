"""A classifier that goes on from an earlier model, with more tokens and more labels."""

import numpy as np
import pyarrow as pa

from distlstm.model.classifier import Classifier
from distlstm.model.directory import TrainedModel
from distlstm.text.labels import LabelSet

_KEPT_WHOLE = ("layers", "pooling")


def grow_from(classifier: Classifier, earlier: TrainedModel, *, labels: LabelSet) -> None:
    """Give a new classifier the weights that an earlier model has for it.

    Embedding rows of the earlier model's tokens, output rows of its labels, and all of recurrent
    layers and pooling; rows of new tokens and labels keep the values they begin with.

    Args:
        classifier: a new one of the same architecture, whose vocabulary begins with the earlier
            model's tokens in their order.
        earlier: the model to go on from.
        labels: the classifier's, which hold all of the earlier model's.
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
