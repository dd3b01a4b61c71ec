"""Tests of the language model: what it sees, its losses, its training, and its directory."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from distlstm.config import ExperimentConfig, ModelConfig, PretrainingConfig
from distlstm.errors import RunError, UserError
from distlstm.model.batch import Batch
from distlstm.model.checkpoint import restore_training, save_training
from distlstm.model.classifier import Classifier
from distlstm.model.directory import load_model
from distlstm.model.growth import begin_from
from distlstm.model.language_directory import (
    PretrainedModel,
    load_language_model,
    save_language_model,
)
from distlstm.model.language_model import (
    LanguageModel,
    Predictions,
    exact_losses,
    log_prior,
    sample_tokens,
    sampled_losses,
)
from distlstm.model.loop import Worker
from distlstm.model.pretraining import Pretraining, epochs_for
from distlstm.text.vocabulary import Vocabulary

VOCAB_SIZE = 30
CONFIG = PretrainingConfig(learning_rate=0.02, dropout=0.0, precision="fp32", sampled_tokens=20)


def model_config(cell: str = "lstm", **changes: object) -> ModelConfig:
    sizes = ModelConfig(embedding_dim=6, hidden_dim=8, num_layers=2)
    return replace(sizes, cell=cell, **changes)  # type: ignore[arg-type]


def language_model(config: ModelConfig | None = None) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(config or model_config(), vocab_size=VOCAB_SIZE).eval()


def padded(*rows: list[int]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    filled = [row + [0] * (int(lengths.max()) - len(row)) for row in rows]
    return torch.tensor(filled), lengths


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_no_direction_sees_what_it_is_to_predict(cell: str, num_layers: int) -> None:
    model = language_model(model_config(cell, num_layers=num_layers))
    row = [5, 9, 3, 7, 11, 4]
    forward, backward = model(*padded(row))
    assert forward.token_ids_N.tolist() == row[1:]
    assert backward.token_ids_N.tolist() == row[::-1][1:]
    for position in range(len(row)):
        changed = row.copy()
        changed[position] = 20
        forward_too, backward_too = model(*padded(changed))
        same = (forward.vectors_ND == forward_too.vectors_ND).all(1).tolist()
        # Prediction t is made after tokens 0 to t.
        assert same == [t < position for t in range(len(row) - 1)]
        same = (backward.vectors_ND == backward_too.vectors_ND).all(1).tolist()
        mirrored = len(row) - 1 - position
        assert same == [t < mirrored for t in range(len(row) - 1)]


def test_padding_changes_no_prediction_and_a_row_of_one_token_has_none() -> None:
    model = language_model()
    rows = [[5, 9, 3], [7], [4, 8, 2, 6, 10]]
    together = model(*padded(*rows))
    for direction in range(2):
        for number, row in enumerate(rows):
            alone = model(*padded(row))[direction]
            mine = together[direction].row_ids_N == number
            assert torch.allclose(together[direction].vectors_ND[mine], alone.vectors_ND, atol=1e-6)
            assert together[direction].token_ids_N[mine].tolist() == alone.token_ids_N.tolist()
    assert [len(each.token_ids_N) for each in model(*padded([7]))] == [0, 0]


def test_the_prior_is_a_distribution_over_all_tokens_but_padding() -> None:
    prior = log_prior(torch.arange(VOCAB_SIZE), VOCAB_SIZE).exp()
    assert prior[1:].sum().item() == pytest.approx(1)
    assert (prior[1:].diff() < 0).all()


def test_tokens_are_sampled_as_often_as_the_prior_says() -> None:
    rng, num_draws = np.random.default_rng(0), 8
    counts = np.zeros(VOCAB_SIZE)
    for _ in range(20_000):
        sampled = sample_tokens(VOCAB_SIZE, num_draws, rng)
        assert (np.diff(sampled) > 0).all()
        counts[sampled] += 1
    prior = log_prior(torch.arange(VOCAB_SIZE), VOCAB_SIZE).exp().numpy()
    expected = 1 - (1 - prior) ** num_draws
    assert counts[0] == 0
    assert counts[1:] / 20_000 == pytest.approx(expected[1:], abs=0.012)


def predictions(num: int = 40) -> tuple[Predictions, Tensor]:
    rng = torch.Generator().manual_seed(1)
    embedding = torch.randn(VOCAB_SIZE, 6, generator=rng)
    ids = torch.randint(1, VOCAB_SIZE, (num,), generator=rng)
    vectors = torch.randn(num, 6, generator=rng)
    return Predictions(vectors, ids, torch.zeros_like(ids)), embedding


def of_sample(found: Predictions, embedding: Tensor, sampled: Tensor, draws: int) -> Tensor:
    return sampled_losses(
        found,
        embedding,
        right_N=found.token_ids_N,
        sampled_S=sampled,
        sampled_ids_S=sampled,
        num_draws=draws,
        vocab_size=VOCAB_SIZE,
    )


def test_exact_losses_are_the_cross_entropy_with_the_prior() -> None:
    found, embedding = predictions()
    logits = found.vectors_ND @ embedding.T + log_prior(torch.arange(VOCAB_SIZE), VOCAB_SIZE)
    wanted = -logits[:, 1:].log_softmax(1)[torch.arange(len(logits)), found.token_ids_N - 1]
    assert torch.allclose(exact_losses(found, embedding), wanted, atol=1e-5)


def test_with_all_tokens_sampled_the_losses_and_their_gradients_are_exact() -> None:
    found, embedding = predictions()
    everything = torch.arange(1, VOCAB_SIZE)
    gradients = []
    for exact in (True, False):
        vectors = found.vectors_ND.clone().requires_grad_()
        rows = embedding.clone().requires_grad_()
        mine = found._replace(vectors_ND=vectors)
        # With so many draws, every token is sampled for certain.
        losses = exact_losses(mine, rows) if exact else of_sample(mine, rows, everything, 10**9)
        (losses * torch.linspace(0, 1, len(losses))).sum().backward()
        gradients.append((losses.detach(), vectors.grad, rows.grad))
    for wanted, got in zip(*gradients, strict=True):
        assert torch.allclose(wanted, got, atol=1e-5)


def test_a_small_sample_gives_the_exact_sum_of_exponentials_on_average() -> None:
    found, embedding = predictions(num=5)
    rng, draws = np.random.default_rng(0), 6
    prior = log_prior(torch.arange(VOCAB_SIZE), VOCAB_SIZE)
    logits = found.vectors_ND @ embedding.T * 0.3 + prior
    small = found._replace(vectors_ND=found.vectors_ND * 0.3)
    right = logits[torch.arange(5), found.token_ids_N]
    share = -torch.expm1(draws * torch.log1p(-prior.exp()))
    sums = []
    for _ in range(4_000):
        sampled = torch.from_numpy(sample_tokens(VOCAB_SIZE, draws, rng)).long()
        losses = of_sample(small, embedding, sampled, draws)
        corrected = right - share[found.token_ids_N].log()
        others = (losses + corrected).exp() - corrected.exp()  # without the right token
        sums.append(others)
    mean = torch.stack(sums).mean(0)
    wanted = logits[:, 1:].exp().sum(1) - right.exp()
    assert torch.allclose(mean, wanted, rtol=0.03)


class Sentences:
    """Batches of sequences in which each token fixes the next: 2, 5, 8, ... modulo 27, plus 2."""

    def __init__(self, epoch: int, num_batches: int = 20) -> None:
        self.rng = np.random.default_rng(epoch)
        self.num_batches = num_batches

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.num_batches):
            lengths = self.rng.integers(2, 9, 16)
            rows = [2 + (self.rng.integers(27) + 3 * np.arange(n)) % 27 for n in lengths]
            tokens = np.concatenate(rows).astype(np.int32)
            sampled = sample_tokens(VOCAB_SIZE, CONFIG.sampled_tokens, self.rng)
            weight = 1 / (2 * (lengths - 1).sum())
            batch = Batch.of_rows(
                tokens,
                lengths,
                weights=np.full(16, weight, np.float32),
                step_tokens=np.concatenate([tokens, sampled]),
            )
            yield replace(batch, sampled_ids=torch.from_numpy(sampled.astype(np.int64)))


def pretraining(
    config: PretrainingConfig = CONFIG, *, num_epochs: int = 3, budget: float | None = None
) -> Pretraining:
    model = language_model(model_config(num_layers=1))
    return Pretraining(
        model, config, num_epochs=num_epochs, seed=0, worker=Worker(), time_budget=budget
    )


def losses_of(run: Pretraining, stop_after: int = 99) -> list[float]:
    found = []
    for result in run.run(Sentences, lambda: Sentences(1000)):
        found.append(result.training_loss)
        if len(found) == stop_after:
            break
    return found


def test_a_language_model_learns_what_follows_what() -> None:
    run = pretraining(num_epochs=30)
    losses_of(run)
    assert run.best is not None
    assert run.history[0].perplexity > 10
    assert run.best.perplexity < 2  # there is nothing to guess
    run.model.load_state_dict(run.best_weights)
    assert run.validate(Sentences(1000)) == pytest.approx(run.best.validation_loss)
    assert run.best.perplexity == pytest.approx(math.exp(run.best.validation_loss))


def test_a_resumed_run_has_the_losses_of_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = losses_of(pretraining())
    first = pretraining()
    found = losses_of(first, stop_after=1)
    save_training(first, tmp_path)
    second = pretraining()
    restore_training(second, tmp_path)
    assert second.history == first.history
    assert found + losses_of(second) == unbroken


def test_the_training_ends_when_its_time_is_used_and_so_does_a_resumed_one(tmp_path: Path) -> None:
    run = pretraining(num_epochs=10_000, budget=0.5)
    losses_of(run)
    assert 0 < len(run.history) < 10_000
    assert run.history[-1].learning_rate < CONFIG.learning_rate  # the rate fell by the time
    save_training(run, tmp_path)
    again = pretraining(num_epochs=10_000, budget=0.5)
    restore_training(again, tmp_path)
    assert again.finished


def test_a_training_that_diverges_twice_says_which_setting_to_lower() -> None:
    run = pretraining(replace(CONFIG, learning_rate=10.0, clip_norm=1e9))
    run.model.embedding.weight.data[5] = math.inf
    with pytest.raises(RunError, match=r"Lower pretraining\.learning_rate \(now 10\)"):
        losses_of(run)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_classifier_begins_with_the_states_of_the_language_model(
    cell: str, *, bidirectional: bool
) -> None:
    config = model_config(cell, bidirectional=bidirectional)
    learnt = language_model(config)
    classifier = Classifier(config, vocab_size=VOCAB_SIZE + 5, num_labels=3).eval()
    new = classifier.embedding.weight[VOCAB_SIZE:].clone()
    begin_from(classifier, learnt)
    assert torch.equal(classifier.embedding.weight[VOCAB_SIZE:], new)
    token_ids, _ = padded([5, 9, 3, 7], [4, 8, 2, 6])
    inputs = classifier.embedding(token_ids.t())
    mirror = 3 - torch.arange(4)[:, None].expand(4, 2)
    for layer in classifier.layers:
        states = layer(inputs, mirror)
        inputs = states.by_token(mirror)
    read = [token_ids.t(), token_ids.t().flip(0)]
    for direction, stack in enumerate(learnt.stacks):
        values = learnt.embedding(read[direction])
        for cell_of_layer in stack.cells:
            values = cell_of_layer(values)[0]
        assert torch.allclose(states.directions[direction], values, atol=1e-6)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    config = ExperimentConfig(model=model_config())
    tokens = ["<pad>", "<unk>", *(f"token{i}" for i in range(VOCAB_SIZE - 2))]
    pretrained = PretrainedModel(
        config=config, model=language_model(), vocabulary=Vocabulary(pa.array(tokens))
    )
    save_language_model(pretrained, tmp_path / "lm")
    return tmp_path / "lm"


def test_a_language_model_is_loaded_as_it_was_saved(directory: Path) -> None:
    loaded = load_language_model(directory)
    assert loaded.config.model == model_config()
    assert len(loaded.vocabulary) == VOCAB_SIZE
    wanted = language_model().state_dict()
    found = loaded.model.state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert len(loaded.fingerprint) == 16


def test_a_language_model_is_no_classifier_and_says_what_to_do(directory: Path) -> None:
    with pytest.raises(UserError, match="is a language model, which gives no labels"):
        load_model(directory)


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.txt"])
def test_a_damaged_language_model_is_refused(directory: Path, name: str) -> None:
    content = (directory / name).read_bytes()
    (directory / name).write_bytes(content[:-3] + b"abc")
    with pytest.raises(UserError, match="is damaged"):
        load_language_model(directory)


def test_weights_of_other_sizes_are_refused(directory: Path) -> None:
    metadata = (directory / "model.json").read_text()
    wider = metadata.replace('"hidden_dim": 8', '"hidden_dim": 9')
    assert wider != metadata
    (directory / "model.json").write_text(wider)
    with pytest.raises(UserError, match="is damaged: weights do not fit the config"):
        load_language_model(directory)


@pytest.mark.parametrize(
    ("steps_per_epoch", "epochs"), [(1, 10), (2_000, 10), (4_400, 5), (10**6, 1)]
)
def test_the_epochs_follow_from_the_steps(steps_per_epoch: int, epochs: int) -> None:
    assert epochs_for(PretrainingConfig(), steps_per_epoch) == epochs
