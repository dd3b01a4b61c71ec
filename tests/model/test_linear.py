from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from distlstm.model import linear as module
from distlstm.model.linear import LinearModel, fit_features, fit_linear
from distlstm.model.ngrams import LAST_SPECIAL_ID, NgramFeatures
from distlstm.model.sparse import SparseRows
from distlstm.text.subwords import Subwords
from distlstm.text.vocabulary import PADDING_ID, UNKNOWN_ID

VOCAB_SIZE = 2100
NO_SUBWORDS = Subwords(np.zeros(0, np.int32), np.zeros(VOCAB_SIZE + 1, np.int64), 0)
SUBWORDS = Subwords(
    np.arange(2 * VOCAB_SIZE, dtype=np.int32) % 97, np.arange(0, 2 * VOCAB_SIZE + 1, 2), 97
)
"""Two subwords a token, shared with some forty others."""


@dataclass(frozen=True)
class Encoded:
    token_ids: np.ndarray
    offsets: np.ndarray


def encoded(*rows: list[int]) -> Encoded:
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Encoded(np.array([token for row in rows for token in row], np.int32), offsets)


def features_of(rows: Encoded, *, min_rows: int = 1, most: int = 10**9) -> NgramFeatures:
    return fit_features(rows.token_ids, rows.offsets, NO_SUBWORDS, most=most, min_rows=min_rows)[0]


def num_longer(rows: Encoded, *, min_rows: int = 1, most: int = 10**9) -> int:
    return len(features_of(rows, min_rows=min_rows, most=most).buckets)


def transformed(features: NgramFeatures, rows: Encoded) -> np.ndarray:
    return dense(features.transform(rows.token_ids, rows.offsets))


def dense(rows: SparseRows) -> np.ndarray:
    return rows.times(torch.eye(rows.width)).numpy()


def trained(
    rows: Encoded, label_ids: np.ndarray, num_labels: int, subwords: Subwords = NO_SUBWORDS
) -> LinearModel:
    return fit_linear(
        rows.token_ids, rows.offsets, label_ids, num_labels=num_labels, subwords=subwords
    )


def predicted(model: LinearModel, rows: Encoded) -> list[int]:
    return [int(label) for label in model.logits(rows.token_ids, rows.offsets).argmax(1)]


def logits(model: LinearModel, rows: list[list[int]]) -> np.ndarray:
    some = encoded(*rows)
    return model.logits(some.token_ids, some.offsets)


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


def ngrams_of(row: list[int]) -> list[tuple[int, ...]]:
    """All n-grams of up to three words, as they come; by slicing."""
    found = [tuple(row[i : i + n]) for n in (1, 2, 3) for i in range(len(row) - n + 1)]
    return [ngram for ngram in found if min(ngram) > LAST_SPECIAL_ID]


def by_hand(rows: list[list[int]]) -> np.ndarray:
    """Rows of (1 + ln count) idf over their length, an n-gram a column, as a matrix."""
    names = sorted({ngram for row in rows for ngram in ngrams_of(row)})
    rows_with = [sum(name in ngrams_of(row) for row in rows) for name in names]
    idf = np.log((1 + len(rows)) / (1 + np.array(rows_with))) + 1
    counts = np.array([[ngrams_of(row).count(name) for name in names] for row in rows])
    weighted = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * idf
    lengths = np.linalg.norm(weighted, axis=1, keepdims=True)
    return np.asarray(weighted / np.maximum(lengths, 1e-9))


def test_special_ids_are_those_of_the_vocabulary() -> None:
    assert max(PADDING_ID, UNKNOWN_ID) == LAST_SPECIAL_ID


@pytest.mark.parametrize("lengths", [[5], [1, 1, 2], [0, 3, 0, 0, 7, 1, 0], [1, 30, 2, 0, 20, 4]])
def test_features_are_tf_idf_of_all_ngrams_of_a_row(lengths: list[int]) -> None:
    rows = ragged(lengths)
    all_rows = encoded(*rows)
    features, prior = fit_features(
        all_rows.token_ids, all_rows.offsets, NO_SUBWORDS, most=10**9, min_rows=1
    )
    ours, expected = transformed(features, all_rows) * prior.idf.numpy(), by_hand(rows)
    np.testing.assert_allclose(ours @ ours.T, expected @ expected.T, atol=1e-5)
    assert np.count_nonzero(ours.any(0)) == expected.shape[1]


def test_longer_ngrams_do_not_cross_rows() -> None:
    assert num_longer(encoded([2, 3], [4, 5])) == 2
    assert num_longer(encoded([2, 3, 4, 5])) == 3 + 2


def test_unknown_tokens_are_no_features_and_separate_their_neighbours() -> None:
    rows = encoded([2, UNKNOWN_ID, 3], [UNKNOWN_ID])
    assert num_longer(rows) == 0
    assert np.flatnonzero(transformed(features_of(rows), rows).any(0)).tolist() == [2, 3]


def test_order_matters_within_an_ngram() -> None:
    assert num_longer(encoded([2, 3], [3, 2])) == 2


def test_an_ngram_of_a_single_row_is_left_out_however_often_it_occurs() -> None:
    rows = encoded([2, 3, 2, 3], [4, 5], [4, 5, 6])
    assert num_longer(rows, min_rows=2) == 1


def test_of_too_many_features_the_most_frequent_are_kept() -> None:
    rows = encoded(*[[2, 3]] * 5, *[[4, 5]] * 4, *[[6, 7]] * 3)
    kept = features_of(rows, most=VOCAB_SIZE + 2)
    assert set(kept.buckets) == set(features_of(encoded([2, 3], [4, 5])).buckets)
    assert num_longer(rows, most=1) == 0


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


def explicit(
    model: LinearModel, rows: Encoded, is_label: np.ndarray, new: Encoded, num_labels: int
) -> list[np.ndarray]:
    """What rows stand for, written out: idf, log-count ratios and subwords side by side."""
    training = transformed(model.features, rows)
    present = (training > 0).astype(float)
    idf = np.log((1 + len(present)) / (1 + present.sum(0))) + 1
    inside, outside = 1 + present[is_label].sum(0), 1 + present[~is_label].sum(0)
    ratios = np.log((inside / inside.sum()) / (outside / outside.sum()))
    of_subword = np.zeros((len(idf), 97))
    for token in range(2, VOCAB_SIZE):
        if present[:, token].any():
            of_subword[token, SUBWORDS.values[SUBWORDS.offsets[token] :][:2]] = 1
    frequency = np.minimum(present.sum(0) @ of_subword, len(present))
    of_subword *= 0.3 * (np.log((1 + len(present)) / (1 + frequency)) + 1) * (frequency > 1)
    share = np.sqrt(len(present) / num_labels / 300)
    stands_for = np.hstack([np.diag(idf), share * np.diag(ratios), of_subword])
    return [transformed(model.features, some) @ stands_for for some in (rows, new)]


@pytest.mark.parametrize("num_labels", [2, 3])
def test_decisions_are_those_of_scikit_learn_on_features_written_out(num_labels: int) -> None:
    rows, label_ids = noisy(400, num_labels, seed=0)
    new, _ = noisy(100, num_labels, seed=1)
    model = trained(encoded(*rows), label_ids, num_labels, SUBWORDS)
    for label in range(num_labels):
        training, tried = explicit(
            model, encoded(*rows), label_ids == label, encoded(*new), num_labels
        )
        used = training.any(0)
        training, tried = training[:, used], tried[:, used]
        reference = LinearSVC(tol=1e-6, max_iter=100_000, random_state=0)
        reference.fit(training, label_ids == label)
        np.testing.assert_allclose(
            logits(model, new)[:, label], reference.decision_function(tried), atol=5e-3
        )


def test_a_word_never_seen_is_judged_by_its_subwords() -> None:
    kin = Subwords(np.array([0, 1, 0, 1, 0, 1], np.int32), np.array([0, 0, 0, 1, 2, 3, 4, 5, 6]), 2)
    rows = encoded(*[[2], [4]] * 10, *[[3], [5]] * 10)
    model = trained(rows, np.array([0] * 20 + [1] * 20), 2, kin)
    assert predicted(model, encoded([6], [7])) == [0, 1]


def test_a_model_survives_its_tensors_and_refuses_those_that_do_not_fit() -> None:
    rows, label_ids = noisy(200, 3, seed=0)
    model = trained(encoded(*rows), label_ids, 3)
    tensors = model.to_tensors()
    again = LinearModel.from_tensors(tensors, vocab_size=VOCAB_SIZE, num_labels=3)
    np.testing.assert_array_equal(logits(again, rows), logits(model, rows))
    bad = [
        {**tensors, "weight": tensors["weight"][:, :2].contiguous()},
        {**tensors, "buckets": tensors["buckets"] - 2**23},
        {name: tensor for name, tensor in tensors.items() if name != "norms"},
        {**tensors, "norms": tensors["norms"].double()},
        {**tensors, "norms": tensors["norms"] * 0},
    ]
    for wrong in bad:
        with pytest.raises(ValueError, match="linear model"):
            LinearModel.from_tensors(wrong, vocab_size=VOCAB_SIZE, num_labels=3)
    with pytest.raises(ValueError, match="fit together"):
        LinearModel.from_tensors(tensors, vocab_size=VOCAB_SIZE - 1, num_labels=3)


def test_the_scores_of_two_labels_are_opposite() -> None:
    rows, label_ids = noisy(300, 2, seed=0)
    model = trained(encoded(*rows), label_ids, 2)
    torch.testing.assert_close(model.weight[:, 0], -model.weight[:, 1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.bias[0], -model.bias[1])


def test_labels_trained_in_several_blocks_are_as_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, label_ids = noisy(600, 40, seed=0)
    together = trained(encoded(*rows), label_ids, 40)
    monkeypatch.setattr(module, "_LABELS_AT_ONCE", 7)
    apart = trained(encoded(*rows), label_ids, 40)
    torch.testing.assert_close(apart.weight, together.weight, atol=2e-2, rtol=0)


def test_rows_that_are_few_and_always_the_same_are_learned_without_a_number_overflowing() -> None:
    rows = encoded(*[[2, 3], [4, 3], [2, 3], [2, 3]] * 200)
    model = trained(rows, np.array([0, 1, 0, 1] * 200), 2, SUBWORDS)
    assert torch.isfinite(model.weight).all()
    assert predicted(model, encoded([2, 3], [4, 3])) == [0, 1]


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
    plain, padded = [[2, 3, 300]], [[UNKNOWN_ID, 2, 3, 300, UNKNOWN_ID]]
    np.testing.assert_allclose(logits(model, padded), logits(model, plain))


def test_a_row_with_nothing_known_gets_the_label_of_the_intercept() -> None:
    rows = encoded(*[[2, 3]] * 5, *[[4, 5]] * 20, *[[6, 7]] * 5)
    model = trained(rows, np.array([0] * 5 + [1] * 20 + [2] * 5), 3)
    best = int(model.bias.argmax())
    assert predicted(model, encoded([], [UNKNOWN_ID], [99])) == [best] * 3


@pytest.mark.parametrize("rows", [encoded([], []), encoded([UNKNOWN_ID], [UNKNOWN_ID])])
def test_training_rows_without_any_word_leave_the_intercept(rows: Encoded) -> None:
    model = trained(rows, np.array([1, 1]), 2)
    assert not model.weight.any()
    assert predicted(model, encoded([5, 6], [])) == [1, 1]


def test_no_rows_give_no_predictions() -> None:
    model = trained(encoded([2], [3]), np.array([0, 1]), 2)
    assert predicted(model, encoded()) == []
