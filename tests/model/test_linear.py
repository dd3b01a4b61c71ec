from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from distlstm.model.linear import (
    LAST_SPECIAL_ID,
    LinearModel,
    NgramFeatures,
    SparseRows,
    fit_features,
    fit_linear,
)
from distlstm.text.vocabulary import PADDING_ID, UNKNOWN_ID


@dataclass(frozen=True)
class Encoded:
    token_ids: np.ndarray
    offsets: np.ndarray


def encoded(*rows: list[int]) -> Encoded:
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Encoded(np.array([token for row in rows for token in row], np.int32), offsets)


def features_of(rows: Encoded, min_bigram_rows: int = 1) -> NgramFeatures:
    return fit_features(rows.token_ids, rows.offsets, min_bigram_rows=min_bigram_rows)


def transformed(features: NgramFeatures, rows: Encoded) -> np.ndarray:
    return dense(features.transform(rows.token_ids, rows.offsets))


def dense(rows: SparseRows) -> np.ndarray:
    return rows.times(torch.eye(rows.width)).numpy()


def trained(rows: Encoded, label_ids: np.ndarray, num_labels: int) -> LinearModel:
    return fit_linear(rows.token_ids, rows.offsets, label_ids, num_labels=num_labels)


def predicted(model: LinearModel, rows: Encoded) -> list[int]:
    return [int(label) for label in model.predict(rows.token_ids, rows.offsets)]


def ragged(lengths: list[int], seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(2, 12, length).tolist() for length in lengths]


def noisy(count: int, num_labels: int, seed: int) -> tuple[list[list[int]], np.ndarray]:
    """Rows of common words and a few that lean to the label; a tenth of the labels are wrong."""
    random = np.random.default_rng(seed)
    label_ids = random.integers(0, num_labels, count)
    rows = []
    for label in label_ids:
        common = 2 + (200 * random.random(random.integers(1, 30)) ** 2).astype(int)
        own = 300 + 40 * label + random.integers(0, 60, random.integers(0, 4))
        rows.append(random.permutation(np.concatenate([common, own])).tolist())
    wrong = random.random(count) < 0.1
    return rows, np.where(wrong, random.integers(0, num_labels, count), label_ids)


def scikit_features(rows: list[list[int]], new: list[list[int]]) -> np.ndarray:
    """What TfidfVectorizer makes of `new`, its columns in our order: unigrams first, by id."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", sublinear_tf=True)
    vectorizer.fit([" ".join(map(str, row)) for row in rows])
    names = [tuple(map(int, name.split())) for name in vectorizer.get_feature_names_out()]
    order = sorted(range(len(names)), key=lambda column: (len(names[column]), names[column]))
    matrix = vectorizer.transform([" ".join(map(str, row)) for row in new])
    return np.asarray(matrix.toarray()[:, order])


def test_special_ids_are_those_of_the_vocabulary() -> None:
    assert max(PADDING_ID, UNKNOWN_ID) == LAST_SPECIAL_ID


@pytest.mark.parametrize(
    "lengths", [[5], [1, 1, 2], [0, 3, 0, 0, 7, 1, 0], [1, 30, 2, 0, 90, 4], [12] * 40]
)
def test_features_equal_those_of_scikit_learn(lengths: list[int]) -> None:
    rows, new = ragged(lengths), ragged([4, 0, 1, 25], seed=1)
    features = features_of(encoded(*rows))
    for some in (rows, new):
        expected = scikit_features(rows, some)
        np.testing.assert_allclose(transformed(features, encoded(*some)), expected, atol=1e-6)


def test_bigrams_do_not_cross_rows() -> None:
    apart, together = features_of(encoded([2, 3], [4, 5])), features_of(encoded([2, 3, 4, 5]))
    assert len(apart.keys) == 4 + 2
    assert len(together.keys) == 4 + 3


def test_the_largest_ids_make_bigrams_of_their_own() -> None:
    last = 2**31 - 1
    rows = encoded([last, last], [last, 2], [2, last], [2, 2])
    assert len(features_of(rows).keys) == 2 + 4
    assert transformed(features_of(rows), rows)[:, 2:].astype(bool).sum() == 4


def test_unknown_tokens_are_no_features_and_separate_their_neighbours() -> None:
    features = features_of(encoded([2, UNKNOWN_ID, 3], [UNKNOWN_ID]))
    assert features.keys.tolist() == [2, 3]


def test_a_bigram_of_a_single_row_is_left_out_however_often_it_occurs() -> None:
    rows = encoded([2, 3, 2, 3], [4, 5], [4, 5, 6])
    assert len(features_of(rows, min_bigram_rows=2).keys) == 5 + 1


def test_rows_have_length_one_or_zero() -> None:
    rows = encoded([2, 2, 3], [], [9], [3])
    lengths = np.linalg.norm(transformed(features_of(encoded([2, 3])), rows), axis=1)
    np.testing.assert_allclose(lengths, [1, 0, 0, 1], atol=1e-6)


def test_the_transpose_holds_the_same_cells() -> None:
    rows = encoded(*ragged([0, 5, 1, 0, 20, 3, 0]))
    matrix = features_of(rows).transform(rows.token_ids, rows.offsets)
    np.testing.assert_array_equal(dense(matrix.transposed()), dense(matrix).T)


def test_features_come_from_read_only_arrays_with_32_bit_offsets_as_from_arrow() -> None:
    rows = encoded(*ragged([3, 0, 9]))
    arrow = Encoded(rows.token_ids.copy(), rows.offsets.astype(np.int32))
    arrow.token_ids.flags.writeable = arrow.offsets.flags.writeable = False
    expected = transformed(features_of(rows), rows)
    np.testing.assert_array_equal(transformed(features_of(arrow), arrow), expected)


def test_more_cells_than_32_bits_can_number_keep_their_columns() -> None:
    count = 50_000
    rows = Encoded(np.arange(2, count + 2, dtype=np.int32), np.arange(count + 1, dtype=np.int32))
    matrix = features_of(rows).transform(rows.token_ids, rows.offsets)
    assert torch.equal(matrix.columns, torch.arange(count, dtype=torch.int32))


@pytest.mark.parametrize("num_labels", [2, 3, 40])
def test_decisions_agree_with_those_of_scikit_learn(num_labels: int) -> None:
    rows, label_ids = noisy(1500, num_labels, seed=0)
    new, truth = noisy(1000, num_labels, seed=1)
    model = trained(encoded(*rows), label_ids, num_labels)
    reference = LinearSVC(tol=1e-6, max_iter=100_000, random_state=0)
    reference.fit(transformed(model.features, encoded(*rows)), label_ids)
    features = transformed(model.features, encoded(*new))
    logits = model.logits(encoded(*new).token_ids, encoded(*new).offsets).numpy()
    decisions = reference.decision_function(features)
    ours = logits if num_labels > 2 else logits[:, 1]
    np.testing.assert_allclose(ours, decisions, atol=2e-3)
    assert np.mean(logits.argmax(1) == reference.predict(features)) > 0.98
    accuracy, expected = np.mean(logits.argmax(1) == truth), reference.score(features, truth)
    assert abs(accuracy - expected) < 0.01


def test_the_scores_of_two_labels_are_opposite() -> None:
    rows, label_ids = noisy(300, 2, seed=0)
    model = trained(encoded(*rows), label_ids, 2)
    torch.testing.assert_close(model.weight[:, 0], -model.weight[:, 1])
    torch.testing.assert_close(model.bias[0], -model.bias[1])


def test_labels_trained_in_several_blocks_are_as_alone() -> None:
    rows, label_ids = noisy(600, 40, seed=0)
    model = trained(encoded(*rows), label_ids, 40)
    alone = trained(encoded(*rows), np.where(label_ids == 35, 0, 1), 2)
    torch.testing.assert_close(model.weight[:, 35], alone.weight[:, 0], atol=2e-3, rtol=0)


def test_a_label_with_one_row_is_learned() -> None:
    rows = encoded(*[[2, 3, 4]] * 20, *[[5, 6, 4]] * 20, [7, 8, 4])
    model = trained(rows, np.array([0] * 20 + [1] * 20 + [2]), 3)
    assert predicted(model, encoded([2, 3], [5, 6], [7, 8])) == [0, 1, 2]


def test_a_label_without_rows_is_never_predicted() -> None:
    rows, label_ids = noisy(200, 2, seed=0)
    assert 2 not in predicted(trained(encoded(*rows), label_ids, 3), encoded(*rows, []))


def test_a_single_label_is_always_predicted() -> None:
    rows = encoded([2, 3], [4], [])
    assert predicted(trained(rows, np.zeros(3, np.int64), 1), rows) == [0, 0, 0]


def test_training_twice_gives_the_same_model() -> None:
    rows, label_ids = noisy(300, 5, seed=0)
    one, two = (trained(encoded(*rows), label_ids, 5) for _ in range(2))
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)


def test_ngrams_never_seen_in_training_change_nothing() -> None:
    rows, label_ids = noisy(200, 3, seed=0)
    model = trained(encoded(*rows), label_ids, 3)
    plain, padded = encoded([2, 3, 300]), encoded([9999, 2, 3, 300, 8888, 7777, UNKNOWN_ID])
    expected = model.logits(plain.token_ids, plain.offsets)
    torch.testing.assert_close(model.logits(padded.token_ids, padded.offsets), expected)


def test_a_row_with_nothing_known_gets_the_label_of_the_intercept() -> None:
    rows = encoded(*[[2, 3]] * 5, *[[4, 5]] * 20, *[[6, 7]] * 5)
    model = trained(rows, np.array([0] * 5 + [1] * 20 + [2] * 5), 3)
    assert predicted(model, encoded([], [UNKNOWN_ID], [99])) == [1, 1, 1]
    assert int(model.bias.argmax()) == 1


@pytest.mark.parametrize("rows", [encoded([], []), encoded([UNKNOWN_ID], [UNKNOWN_ID])])
def test_training_rows_without_any_word_leave_the_intercept(rows: Encoded) -> None:
    model = trained(rows, np.array([1, 1]), 2)
    assert model.weight.shape == (0, 2)
    assert predicted(model, encoded([5, 6], [])) == [1, 1]


def test_no_rows_give_no_predictions() -> None:
    model = trained(encoded([2], [3]), np.array([0, 1]), 2)
    assert predicted(model, encoded()) == []
