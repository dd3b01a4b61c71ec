"""Tests of the epoch loop, its checkpoints and the MODEL directory."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from distlstm.config import ExperimentConfig, ModelConfig, TrainingConfig
from distlstm.data.batching import rows_of_rank
from distlstm.errors import RunError, UserError
from distlstm.model.batch import Batch
from distlstm.model.checkpoint import restore_training, save_training
from distlstm.model.classifier import Classifier
from distlstm.model.directory import TrainedModel, load_model, save_model
from distlstm.model.label_kind import ONE_LABEL
from distlstm.model.loop import Worker, check_same_weights, rate_share
from distlstm.model.training import Training, epochs_for, pretrained_rate
from distlstm.text.labels import LabelSet
from distlstm.text.vocabulary import Vocabulary

SMALL = ModelConfig(embedding_dim=8, hidden_dim=8)
CONFIG = TrainingConfig(learning_rate=0.02, precision="fp32", patience=9)


class Toy:
    """Batches of a problem that can be learnt: the label is the first token's parity."""

    def __init__(self, epoch: int, size: int = 12) -> None:
        self.rng = np.random.default_rng(epoch)
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.size):
            lengths = self.rng.integers(1, 6, 16)
            tokens = self.rng.integers(2, 20, lengths.sum()).astype(np.int32)
            firsts = tokens[np.cumsum(lengths) - lengths]
            yield Batch.of_rows(tokens, lengths, label_ids=(firsts % 2).astype(np.int64))


def training(config: TrainingConfig = CONFIG, num_epochs: int = 4) -> Training:
    torch.manual_seed(0)
    model = Classifier(SMALL, vocab_size=20, num_labels=2)
    return Training(model, config, num_epochs=num_epochs, seed=0, worker=Worker())


def losses(run: Training, stop_after: int = 99) -> list[float]:
    found = []
    for result in run.run(Toy, lambda: Toy(1000)):
        found.append(result.training_loss)
        if len(found) == stop_after:
            break
    return found


def test_training_learns_and_keeps_the_best_weights() -> None:
    run = training(num_epochs=8)
    found = losses(run)
    assert found[-1] < found[0] - 0.1
    assert run.best is not None
    assert run.best.validation.accuracy > 0.8
    run.model.load_state_dict(run.best_weights)
    assert run.validate(Toy(1000)).log_loss / 192 == pytest.approx(run.best.validation.log_loss)


def test_the_same_seed_gives_the_same_losses() -> None:
    assert losses(training()) == losses(training())


def test_a_resumed_run_has_the_losses_of_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = losses(training())
    first = training()
    begun = losses(first, stop_after=2)
    save_training(first, tmp_path)
    torch.manual_seed(123)
    second = Training(
        Classifier(SMALL, vocab_size=20, num_labels=2),
        CONFIG,
        num_epochs=4,
        seed=0,
        worker=Worker(),
    )
    restore_training(second, tmp_path)
    assert begun + losses(second) == pytest.approx(unbroken, abs=1e-7)
    assert second.history[:2] == first.history


def test_training_stops_when_patience_runs_out() -> None:
    run = training(replace(CONFIG, patience=2, learning_rate=2.0), num_epochs=50)
    assert len(losses(run)) < 50
    assert run.finished


def spoil(run: Training, *, epoch: int, times: int, value: float = float("nan")) -> list[str]:
    """Train; before step 6 of an epoch a weight is overwritten, so many times. The notes."""
    left = [times]

    class Batches(Toy):
        def __iter__(self) -> Iterator[Batch]:
            for step, batch in enumerate(super().__iter__()):
                if now == epoch and step == 5 and left[0]:
                    left[0] -= 1
                    with torch.no_grad():
                        run.model.output.weight.mul_(value)
                yield batch

    def batches(number: int) -> Toy:
        nonlocal now
        now = number
        return Batches(number)

    now = 0
    notes: list[str] = []
    for _ in run.run(batches, lambda: Toy(1000), on_note=notes.append):
        pass
    return notes


@pytest.mark.parametrize(("epoch", "back"), [(0, "the initial weights"), (2, "the end of epoch 2")])
def test_a_training_that_diverges_goes_back_once_with_a_quarter_of_the_rate(
    epoch: int, back: str
) -> None:
    run = training()
    (note,) = spoil(run, epoch=epoch, times=1)
    assert back in note
    assert "0.005 instead of 0.02" in note
    assert [result.epoch for result in run.history] == [1, 2, 3, 4]
    rates = [result.highest_rate for result in run.history]
    assert rates == [0.02] * epoch + [0.005] * (4 - epoch)
    assert all(np.isfinite(result.training_loss) for result in run.history)


def test_going_back_leaves_what_a_training_with_that_rate_would_have() -> None:
    run = training()
    spoil(run, epoch=0, times=1)
    quarter = training(replace(CONFIG, learning_rate=0.005))
    assert [result.training_loss for result in run.history] == losses(quarter)


def test_a_training_that_diverges_twice_ends_with_advice() -> None:
    run = training()
    with pytest.raises(
        RunError, match=r"diverged again.*of 0\.005: .*Lower training\.learning_rate"
    ):
        spoil(run, epoch=1, times=2)
    assert [result.epoch for result in run.history] == [1]


def test_a_loss_beyond_all_measure_is_a_divergence() -> None:
    (note,) = spoil(training(), epoch=1, times=1, value=1e4)
    assert "above 6.93" in note or "not finite" in note


def test_a_lowered_rate_is_resumed(tmp_path: Path) -> None:
    run = training()
    spoil(run, epoch=1, times=1)
    save_training(run, tmp_path)
    second = training(num_epochs=6)
    restore_training(second, tmp_path)
    assert second.highest_rate == 0.005
    with pytest.raises(RunError, match="diverged again"):
        spoil(second, epoch=4, times=1)


def test_workers_whose_weights_differ_are_found_out() -> None:
    model = training().model
    other = training().model
    with torch.no_grad():
        other.output.bias += 0.01

    def gathered(mine: np.ndarray) -> np.ndarray:
        seen: list[np.ndarray] = []
        rank_1 = Worker(rank=1, world_size=2, all_reduce=lambda v: (seen.append(v), v)[1])
        with contextlib.suppress(RunError):
            check_same_weights(theirs, rank_1, 1)
        return mine + seen[0]

    rank_0 = Worker(rank=0, world_size=2, all_reduce=gathered)
    theirs = training().model
    check_same_weights(model, rank_0, 1)
    theirs = other
    with pytest.raises(RunError, match="weights differ after epoch 3"):
        check_same_weights(model, rank_0, 3)


@pytest.mark.parametrize(("num_rows", "world_size"), [(13, 2), (13, 3), (1, 2), (2, 3), (16, 2)])
def test_the_ranks_gradients_average_to_that_of_one_worker(num_rows: int, world_size: int) -> None:
    torch.manual_seed(0)
    model = Classifier(SMALL, vocab_size=20, num_labels=2).eval()
    rng = np.random.default_rng(0)
    rows = [rng.integers(2, 20, rng.integers(1, 9)).astype(np.int32) for _ in range(num_rows)]
    labels = rng.integers(0, 2, num_rows)

    def gradient(indices: np.ndarray, weights: np.ndarray) -> torch.Tensor:
        chosen = [rows[i] for i in indices]
        lengths = np.array([len(row) for row in chosen])
        batch = Batch.of_rows(
            np.concatenate(chosen), lengths, label_ids=labels[indices], weights=weights
        )
        model.zero_grad()
        losses = torch.nn.functional.cross_entropy(
            model(batch.token_ids, batch.lengths), batch.label_ids, reduction="none"
        )
        (losses * batch.weights).sum().backward()
        return torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None])

    step = np.arange(num_rows)
    alone = gradient(step, np.full(num_rows, 1 / num_rows))
    ranks = [
        gradient(*rows_of_rank(step, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    torch.testing.assert_close(torch.stack(ranks).mean(0), alone, atol=1e-5, rtol=0)


def test_a_distributions_loss_is_the_mean_of_its_labels_losses() -> None:
    rng = np.random.default_rng(0)
    logits, targets = torch.randn(6, 3), rng.dirichlet(np.ones(3), 6).astype(np.float32)
    tokens, lengths = np.arange(2, 8, dtype=np.int32), np.ones(6, np.int64)

    def losses(targets: np.ndarray | None, label: int = 0) -> np.ndarray:
        labels = np.full(6, label)
        batch = Batch.of_rows(tokens, lengths, label_ids=labels, targets=targets)
        smoothing = 0.0 if targets is None else 0.3  # of a distribution, none
        return ONE_LABEL.losses(logits, batch, label_smoothing=smoothing).numpy()

    of_labels = np.stack([losses(None, label) for label in range(3)], axis=1)
    np.testing.assert_allclose(losses(targets), (targets * of_labels).sum(1), rtol=1e-5)
    sure = np.tile(np.eye(3, dtype=np.float32)[1], (6, 1))
    np.testing.assert_allclose(losses(sure), losses(None, 1), rtol=1e-6)


def test_epochs_follow_from_the_steps_of_one() -> None:
    config = TrainingConfig(steps=1000, min_epochs=3, max_epochs=10)
    assert [epochs_for(config, steps) for steps in (1, 150, 400, 9999)] == [10, 7, 3, 3]


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [rate_share(i / 100) for i in range(100)]
    assert max(rates) == rates[10] == 1.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    vocabulary = Vocabulary(pa.array(["<pad>", "<unk>", *map(str, range(18))]))
    model = TrainedModel(
        config=ExperimentConfig(model=SMALL),
        classifier=Classifier(SMALL, vocab_size=20, num_labels=2),
        vocabulary=vocabulary,
        labels=LabelSet(("no", "是")),
        temperature=1.5,
    )
    save_model(model, tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_gives_the_same_logits(saved: Path) -> None:
    first, second = load_model(saved), load_model(saved)
    batch = next(iter(Toy(0)))
    with torch.inference_mode():
        logits = [m.classifier(batch.token_ids, batch.lengths) for m in (first, second)]
    assert torch.equal(*logits)
    assert first.labels.names == ("no", "是")
    assert first.fingerprint == second.fingerprint != ""


def edit(path: Path, **changes: object) -> None:
    metadata = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps({**metadata, **changes}))


def test_a_damaged_model_directory_gives_one_clear_error(saved: Path) -> None:
    weights, metadata = saved / "model.safetensors", saved / "model.json"
    original, original_facts = weights.read_bytes(), metadata.read_bytes()
    huge = json.loads(original_facts)["model"] | {"hidden_dim": 8192, "num_layers": 16}
    damages = {
        "truncated": lambda: weights.write_bytes(original[:-100]),
        "oversized": lambda: weights.write_bytes(original + b"\\0"),
        "one bit": lambda: weights.write_bytes(original[:-1] + bytes([original[-1] ^ 1])),
        "no weights": weights.unlink,
        "other vocabulary": lambda: (saved / "vocabulary.txt").write_text("<pad>\n<unk>\n"),
        "other version": lambda: edit(saved, format_version=99),
        "sizes that do not fit": lambda: edit(saved, model=huge),
        "not JSON": lambda: metadata.write_text("{"),
        "a list": lambda: metadata.write_text("[]"),
        "no labels": lambda: edit(saved, labels=None),
    }
    vocabulary = (saved / "vocabulary.txt").read_bytes()
    for name, damage in damages.items():
        weights.write_bytes(original)
        metadata.write_bytes(original_facts)
        (saved / "vocabulary.txt").write_bytes(vocabulary)
        damage()
        with pytest.raises(UserError) as raised:
            load_model(saved)
        assert str(saved) in str(raised.value), name


def test_what_is_no_model_directory_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a model directory"):
        load_model(tmp_path)


def test_a_frozen_embedding_stays_for_its_epochs_and_learns_after_them_also_when_resumed(
    tmp_path: Path,
) -> None:
    config = replace(CONFIG, frozen_epochs=2)
    unbroken = losses(training(config))
    first = training(config)
    before = first.model.embedding.weight.detach().clone()
    output = first.model.output.weight.detach().clone()
    begun = losses(first, stop_after=1)
    save_training(first, tmp_path)
    second = training(config)
    restore_training(second, tmp_path)
    begun += losses(second, stop_after=1)
    assert torch.equal(second.model.embedding.weight, before)
    assert not torch.equal(second.model.output.weight, output)
    begun += losses(second)
    assert not torch.equal(second.model.embedding.weight, before)
    assert begun == pytest.approx(unbroken, abs=1e-7)


class SavesAfter:
    """Saves at the first check after so many steps, and ends the training there."""

    class EndedError(Exception):
        pass

    def __init__(self, run: Training, directory: Path, *, epoch: int) -> None:
        self.run, self.directory, self.epoch = run, directory, epoch

    def are_due(self) -> bool:
        return len(self.run.history) == self.epoch

    def save(self) -> None:
        save_training(self.run, self.directory)
        raise self.EndedError


def test_a_training_that_is_saved_within_an_epoch_goes_on_as_if_it_had_never_ended(
    tmp_path: Path,
) -> None:
    whole, first, second = training(), training(), training()
    with pytest.raises(SavesAfter.EndedError):
        for _ in first.run(
            Toy, lambda: Toy(1000), checkpoints=SavesAfter(first, tmp_path, epoch=1)
        ):
            pass
    restore_training(second, tmp_path)
    assert second.begun is not None
    assert 0 < second.begun.steps < len(Toy(1))
    losses(second)
    assert [result.training_loss for result in second.history] == losses(whole)
    pairs = zip(second.model.parameters(), whole.model.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_pretrained_layers_learn_at_their_own_rate() -> None:
    weights = {}
    for rate in (1.0, 0.5, 1e-9):
        torch.manual_seed(0)
        model = Classifier(SMALL, vocab_size=20, num_labels=2)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        run = Training(model, CONFIG, num_epochs=1, seed=0, worker=Worker(), pretrained_rate=rate)
        losses(run)
        weights[rate] = {
            name: float((value - before[name]).abs().mean())
            for name, value in model.state_dict().items()
        }
    for name, moved in weights[1e-9].items():
        if name.startswith(("embedding", "layers")):
            assert moved < 1e-6 < weights[0.5][name] < weights[1.0][name]
        else:
            assert moved > 1e-4


def test_few_rows_change_pretrained_layers_little() -> None:
    config = TrainingConfig()
    assert pretrained_rate(config, 300) == 0.3
    assert pretrained_rate(config, 5_000) == 1.0
    assert pretrained_rate(replace(config, pretrained_rate=0.1), 5_000) == 0.1
