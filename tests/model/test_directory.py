"""MODEL directories from careless copies and from strangers; see also `test_loop.py`."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from distlstm.config import ExperimentConfig, ModelConfig, TextConfig
from distlstm.errors import UserError
from distlstm.model.batch import Batch
from distlstm.model.cascade import Cascade
from distlstm.model.classifier import Classifier
from distlstm.model.directory import TrainedModel, load_model, save_model
from distlstm.model.label_sets import LabelSets
from distlstm.model.linear import LinearModel
from distlstm.model.metadata import model_fingerprint
from distlstm.model.ngrams import NgramFeatures
from distlstm.text.labels import LabelSet
from distlstm.text.vocabulary import Vocabulary

TOKENS = ("<pad>", "<unk>", "好", "\r", "\u2028", "e\u0301", "c", "d")


def partner() -> LinearModel:
    features = NgramFeatures(np.array([5, 99], np.int32), np.ones(len(TOKENS) + 2, np.float32))
    return LinearModel(features, torch.randn(len(TOKENS) + 2, 3), torch.randn(3))


def model(
    cell: str = "lstm", num_layers: int = 1, linear: LinearModel | None = None
) -> TrainedModel:
    torch.manual_seed(0)
    sizes = ModelConfig(
        cell=cell,  # type: ignore[arg-type]
        embedding_dim=4,
        hidden_dim=3,
        num_layers=num_layers,
        pooling=("attention", "last"),
    )
    return TrainedModel(
        config=ExperimentConfig(seed=7, text=TextConfig(lowercase=False), model=sizes),
        classifier=Classifier(sizes, vocab_size=len(TOKENS), num_labels=3).eval(),
        vocabulary=Vocabulary(pa.array(TOKENS)),
        labels=LabelSet(("no", "是", 'a "quoted" one')),
        temperature=1.2345678901234567,
        linear=linear,
        metadata={"metrics": {"accuracy": 0.5}},
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    save_model(model(), tmp_path / "model")
    return tmp_path / "model"


def metadata_of(directory: Path) -> dict[str, object]:
    return dict(json.loads((directory / "model.json").read_text(encoding="utf-8")))


def edit(directory: Path, **changes: object) -> None:
    text = json.dumps({**metadata_of(directory), **changes})
    (directory / "model.json").write_text(text, encoding="utf-8")


def sign(directory: Path, name: str) -> None:
    """Enter a changed file's size and digest, as whoever means harm would."""
    content = (directory / name).read_bytes()
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    files = metadata_of(directory)["files"]
    assert isinstance(files, dict)
    edit(directory, files={**files, name: entry})


def assert_refused(directory: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_model(directory)
    message = str(raised.value)
    assert str(directory) in message
    return message


@pytest.mark.parametrize(("cell", "num_layers"), [("lstm", 1), ("gru", 2), ("rnn", 1)])
def test_a_loaded_model_is_the_one_saved(tmp_path: Path, cell: str, num_layers: int) -> None:
    before = model(cell, num_layers)
    save_model(before, tmp_path / "new" / "model")
    after = load_model(tmp_path / "new" / "model")
    batch = Batch.of_rows(np.array([2, 3, 4, 5, 6], np.int32), np.array([1, 4]))
    with torch.inference_mode():
        expected = before.classifier(batch.token_ids, batch.lengths)
        assert torch.equal(after.classifier(batch.token_ids, batch.lengths), expected)
    assert not after.classifier.training
    assert after.vocabulary == before.vocabulary
    assert after.labels == before.labels
    assert (after.config, after.temperature) == (before.config, before.temperature)
    assert after.metadata == before.metadata


def test_a_model_older_than_normalization_reads_texts_as_it_always_did(directory: Path) -> None:
    before = model_fingerprint(directory, metadata_of(directory))
    text = metadata_of(directory)["text"]
    assert isinstance(text, dict)
    assert load_model(directory).config.text.normalization == text.pop("normalization") == "nfkc"
    edit(directory, text=text)
    older = load_model(directory)
    assert older.config.text == TextConfig(lowercase=False, normalization="none")
    assert older.fingerprint == model_fingerprint(directory, metadata_of(directory)) != before


def test_nothing_in_a_model_directory_is_pickled_or_an_archive(directory: Path) -> None:
    names = {path.name for path in directory.iterdir()}
    assert names == {"model.json", "model.safetensors", "vocabulary.txt"}
    weights = (directory / "model.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"F32"}
    for path in directory.iterdir():
        assert not path.read_bytes().startswith((b"\x80", b"PK", b"\x1f\x8b"))


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.txt"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content + b"\0",
        lambda content: content[:-2] + bytes([content[-2] ^ 1]) + content[-1:],
    ],
    ids=["truncated", "emptied", "appended to", "one bit"],
)
def test_a_damaged_file_is_named(
    directory: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    (directory / name).write_bytes(damage((directory / name).read_bytes()))
    assert name in assert_refused(directory)


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.txt"])
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    assert name in assert_refused(directory)


def test_every_truncation_of_the_facts_is_one_error(directory: Path) -> None:
    content = (directory / "model.json").read_bytes()
    for length in range(0, len(content.rstrip()), 17):
        (directory / "model.json").write_bytes(content[:length])
        assert_refused(directory)


@pytest.mark.parametrize("key", ["labels", "temperature", "files", "seed", "text", "model"])
def test_facts_that_lack_something_are_one_error(directory: Path, key: str) -> None:
    metadata = metadata_of(directory)
    del metadata[key]
    (directory / "model.json").write_text(json.dumps(metadata), encoding="utf-8")
    assert_refused(directory)


@pytest.mark.parametrize("value", [0, -1.5, float("nan"), float("inf"), "1.5", None, True])
def test_a_temperature_by_which_no_score_can_be_divided_is_named(
    directory: Path, value: object
) -> None:
    edit(directory, temperature=value)
    assert f"temperature is {value!r}" in assert_refused(directory)


@pytest.mark.parametrize(
    "labels", [["no", "no", "b"], ["", "a", "b"], ["a", 1, "b"], [["a"], "b", "c"], "abc", [], None]
)
def test_labels_that_are_not_distinct_texts_are_named(directory: Path, labels: object) -> None:
    edit(directory, labels=labels)
    assert "labels are not distinct texts" in assert_refused(directory)


def test_weights_that_are_no_safetensors_are_refused_even_when_signed(directory: Path) -> None:
    for content in (b"", b"\xff" * 64, (2**62).to_bytes(8, "little") + b"{}", b"\x80\x04N."):
        (directory / "model.safetensors").write_bytes(content)
        sign(directory, "model.safetensors")
        assert_refused(directory)


def test_a_vocabulary_of_another_size_is_refused_even_when_signed(directory: Path) -> None:
    with (directory / "vocabulary.txt").open("a", encoding="utf-8") as file:
        file.write("another\n")
    sign(directory, "vocabulary.txt")
    assert "embedding" in assert_refused(directory)


def test_a_linear_partner_is_saved_with_the_model_and_goes_with_it(tmp_path: Path) -> None:
    linear = partner()
    save_model(model(linear=linear), tmp_path / "model")
    loaded = load_model(tmp_path / "model").linear
    assert loaded is not None
    for name, tensor in linear.to_tensors().items():
        assert torch.equal(loaded.to_tensors()[name], tensor), name
    save_model(model(), tmp_path / "model")
    assert load_model(tmp_path / "model").linear is None
    assert not (tmp_path / "model" / "wide.safetensors").exists()


def test_a_damaged_linear_partner_is_refused_even_when_signed(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    save_model(model(linear=partner()), directory)
    (directory / "wide.safetensors").write_bytes(b"no tensors")
    assert "wide.safetensors" in assert_refused(directory)
    sign(directory, "wide.safetensors")
    assert_refused(directory)
    save_file({**partner().to_tensors(), "bias": torch.zeros(2)}, directory / "wide.safetensors")
    sign(directory, "wide.safetensors")
    assert "linear model" in assert_refused(directory)


def test_weights_for_other_labels_are_refused(directory: Path) -> None:
    edit(directory, labels=["one", "two"])
    assert "output" in assert_refused(directory)


def test_weights_with_other_names_are_refused_even_when_signed(directory: Path) -> None:
    save_file({"other": torch.zeros(2)}, directory / "model.safetensors")
    sign(directory, "model.safetensors")
    assert_refused(directory)


def test_sizes_that_would_take_gigabytes_are_refused_before_memory_is_taken(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = {"embedding_dim": 4096, "hidden_dim": 8192, "num_layers": 16}
    edit(directory, model={**vars(model().config.model), **largest})
    devices = set()
    real = torch.nn.Parameter.__new__

    def recorded(cls: type, data: torch.Tensor, requires_grad: bool = True) -> torch.Tensor:
        devices.add(data.device.type)
        return real(cls, data, requires_grad)

    monkeypatch.setattr(torch.nn.Parameter, "__new__", recorded)
    assert "do not fit" in assert_refused(directory)
    assert devices == {"meta"}


def test_facts_too_large_to_be_a_models_are_not_read(directory: Path) -> None:
    with (directory / "model.json").open("r+b") as file:
        file.truncate(64 * 2**20 + 1)
    assert "too large" in assert_refused(directory)


@pytest.mark.parametrize("found", [1, "2", None])
def test_another_format_version_is_named(directory: Path, found: object) -> None:
    edit(directory, format_version=found)
    assert f"format version {found!r}" in assert_refused(directory)


def test_a_path_that_is_a_file_or_does_not_exist_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file", "absent"):
        assert_refused(tmp_path / name)


def test_saving_over_a_model_leaves_the_new_one_and_nothing_else(directory: Path) -> None:
    first = load_model(directory).fingerprint
    save_model(model("gru"), directory)
    assert load_model(directory).config.model.cell == "gru"
    assert load_model(directory).fingerprint != first
    assert len(list(directory.iterdir())) == 3


def test_the_thresholds_of_label_sets_are_kept_and_decide_the_fingerprint(tmp_path: Path) -> None:
    prints = set()
    for name, last in (("a", 0.25), ("b", 0.75)):
        save_model(replace(model(), kind=LabelSets((0.5, 0.01, last))), tmp_path / name)
        loaded = load_model(tmp_path / name)
        assert loaded.kind == LabelSets((0.5, 0.01, last))
        prints.add(loaded.fingerprint)
    assert len(prints) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "pairs"},
        {"kind": ["multi"]},
        {"kind": "multi"},
        {"kind": "multi", "thresholds": [0.5, 0.5]},
        {"kind": "multi", "thresholds": [0.5, 0.5, 1.5]},
        {"kind": "multi", "thresholds": [0.5, 0.5, "0.5"]},
        {"kind": "multi", "thresholds": [0.5, 0.5, float("nan")]},
        {"kind": "multi", "thresholds": 7},
    ],
)
def test_labels_of_an_unknown_kind_or_without_thresholds_are_refused(
    directory: Path, changes: dict[str, object]
) -> None:
    edit(directory, **changes)
    assert_refused(directory)


def test_a_model_of_one_label_says_nothing_of_kinds(directory: Path) -> None:
    assert not {"kind", "thresholds"} & metadata_of(directory).keys()


def test_a_cascade_is_kept_with_the_model_and_decides_the_fingerprint(tmp_path: Path) -> None:
    cascade, prints = Cascade(lead=0.73, temperature=0.51, share=0.8), set()
    for name, kept in (("a", cascade), ("b", replace(cascade, lead=0.74)), ("c", None)):
        save_model(replace(model(linear=partner()), cascade=kept), tmp_path / name)
        loaded = load_model(tmp_path / name)
        assert loaded.cascade == kept
        prints.add(loaded.fingerprint)
    assert len(prints) == 3
    assert "cascade" not in metadata_of(tmp_path / "c")


@pytest.mark.parametrize(
    "cascade",
    [
        *({}, [], None, True, {"lead": 0.5}),
        {"lead": 0.5, "temperature": 1.0, "share": 0.5, "more": 1},
        {"lead": -0.5, "temperature": 1.0, "share": 0.5},
        {"lead": float("nan"), "temperature": 1.0, "share": 0.5},
        {"lead": "0.5", "temperature": 1.0, "share": 0.5},
        {"lead": 0.5, "temperature": 0.0, "share": 0.5},
        {"lead": 0.5, "temperature": True, "share": 0.5},
        {"lead": 0.5, "temperature": 1.0, "share": 1.5},
    ],
)
def test_a_cascade_that_cannot_be_applied_is_refused(tmp_path: Path, cascade: object) -> None:
    save_model(model(linear=partner()), tmp_path / "model")
    edit(tmp_path / "model", cascade=cascade)
    assert_refused(tmp_path / "model")


def test_a_cascade_needs_a_partner_and_single_labels(directory: Path, tmp_path: Path) -> None:
    cascade = {"lead": 0.5, "temperature": 1.0, "share": 0.5}
    edit(directory, cascade=cascade)
    assert "cascade" in assert_refused(directory)
    of_sets = replace(model(linear=partner()), kind=LabelSets((0.5, 0.5, 0.5)))
    save_model(of_sets, tmp_path / "sets")
    edit(tmp_path / "sets", cascade=cascade)
    assert "cascade" in assert_refused(tmp_path / "sets")


MODEL_FILES = ("model.json", "model.safetensors", "vocabulary.txt", "wide.safetensors")


def run_predict(directory: Path) -> subprocess.CompletedProcess[str]:
    """What a user sees; a command that hangs is ended by the timeout."""
    command = [sys.executable, "-m", "distlstm", "predict", "--model", str(directory), "text"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", MODEL_FILES)
@pytest.mark.parametrize("kind", ["fifo", "device", "directory", "socket"])
def test_a_file_that_is_not_regular_is_refused_at_once(
    directory: Path, name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(model(linear=partner()), directory)
    (directory / name).unlink()
    if kind == "fifo":
        os.mkfifo(directory / name)
    elif kind == "device":
        (directory / name).symlink_to("/dev/zero")
    elif kind == "directory":
        (directory / name).mkdir()
    else:
        monkeypatch.chdir(directory)  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(name)
    started = time.monotonic()
    message = assert_refused(directory)
    assert name in message
    assert "not a regular file" in message
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_predict_does_not_wait_for_a_fifo(directory: Path, name: str) -> None:
    (directory / name).unlink()
    os.mkfifo(directory / name)
    result = run_predict(directory)
    assert result.returncode == 2
    assert f"{name} is not a regular file" in " ".join(result.stderr.split())


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_file_larger_than_a_model_of_these_shapes_is_not_read(directory: Path, name: str) -> None:
    save_model(model(linear=partner()), directory)
    os.truncate(directory / name, 20 * 10**9)  # sparse
    if name != "model.json":
        files = metadata_of(directory)["files"]
        assert isinstance(files, dict)
        edit(directory, files={**files, name: {"bytes": 20 * 10**9, "sha256": "0" * 64}})
    started = time.monotonic()
    message = assert_refused(directory)
    assert name in message
    assert "too large" in message
    if name != "model.json":
        with pytest.raises(UserError, match="too large"):
            model_fingerprint(directory, metadata_of(directory))
    assert time.monotonic() - started < 1


def test_links_to_regular_files_are_followed(directory: Path, tmp_path: Path) -> None:
    for path in list(directory.iterdir()):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    assert load_model(directory).labels == model().labels


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e30])
@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("model.safetensors", "embedding.weight"),
        ("model.safetensors", "output.bias"),
        ("wide.safetensors", "norms"),
        ("wide.safetensors", "weight"),
        ("wide.safetensors", "bias"),
    ],
)
def test_a_weight_that_is_no_finite_number_is_refused(
    directory: Path, name: str, tensor: str, value: float
) -> None:
    save_model(model(linear=partner()), directory)
    tensors = load_file(directory / name)
    tensors[tensor].view(-1)[-1] = value
    save_file(tensors, directory / name)
    sign(directory, name)
    message = assert_refused(directory)
    assert name in message
    assert tensor in message


def test_predict_says_which_weight_is_not_finite(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors["output.bias"][0] = float("nan")
    save_file(tensors, directory / "model.safetensors")
    sign(directory, "model.safetensors")
    result = run_predict(directory)
    assert (result.returncode, result.stdout) == (2, "")
    assert "output.bias" in result.stderr


def test_a_vocabulary_with_a_token_twice_is_refused(directory: Path) -> None:
    text = (directory / "vocabulary.txt").read_bytes().decode("utf-8")
    for damaged in (text.replace("\nd\n", "\nc\n"), text.replace("\nd\n", "\n<pad>\n")):
        (directory / "vocabulary.txt").write_text(damaged, encoding="utf-8", newline="")
        sign(directory, "vocabulary.txt")
        assert "vocabulary.txt" in (message := assert_refused(directory))
        assert "twice" in message


@pytest.mark.parametrize("temperature", [1e-30, 1e-4, 1e4, 1e300])
def test_a_temperature_that_calibration_never_finds_is_refused(
    directory: Path, temperature: float
) -> None:
    edit(directory, temperature=temperature)
    assert "temperature" in assert_refused(directory)
