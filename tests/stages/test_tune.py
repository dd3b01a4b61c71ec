"""Tests of `tune`: the STUDY directory it writes, and what a second command makes of it."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.config import load_config
from distlstm.model.directory import load_model
from tests.commands import TINY, run
from tests.conftest import WORDS, labelled_rows

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]
SMALL = [*TINY, "--set", "training.max_epochs=3"]
SPACE = [
    *("--set", "search.space.model.num_layers={choice=[1, 2]}"),
    *("--set", "search.space.model.hidden_dim={choice=[8, 12]}"),
]


def rows(study: Path) -> list[dict[str, object]]:
    return list(pq.read_table(study / "trials.parquet").to_pylist())


def test_a_study_has_a_model_its_trials_and_the_winning_config_and_can_be_added_to(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    command = ["tune", corpus_file, "--output", study, *SMALL, *SPACE, "--json", "--trials"]
    first = run(capfd, *command, 3)
    assert "model.embedding_dim is 12, outside its default domain" in first.err
    result = json.loads(first.out)
    trials = rows(study)
    assert len(trials) == len(result["trials"]) == 3
    assert {trial["state"] for trial in trials} <= {"done", "stopped"}
    assert [trial["is_chosen"] for trial in trials] == [True, False, False]
    assert trials[0]["macro_f1"] == max(trial["macro_f1"] for trial in trials)
    assert all(trial["rows_per_second"] > 0 < trial["num_parameters"] for trial in trials)
    best = load_model(study / "best")
    assert best.config.model.num_layers == trials[0]["model.num_layers"]
    assert load_config(study / "best.toml").model == best.config.model
    assert "model.num_layers" in (study / "report.html").read_text()
    epochs = pq.read_table(study / "epochs.parquet").to_pylist()
    assert {(e["trial"], e["epoch"]) for e in epochs} == {
        (t["trial"], number + 1) for t in trials for number in range(t["epoch"])
    }
    checkpoints = list((study / "ray").rglob("*.safetensors"))
    assert len(checkpoints) == 1, "only the chosen trial's checkpoint is kept"

    assert json.loads(run(capfd, *command, 3).out)["resumed"]

    metadata = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps({**metadata, "finished": False}))
    shutil.rmtree(study / "best")  # as if it had been killed after the last trial
    assert run(capfd, *command, 3).code == 0
    assert load_model(study / "best").fingerprint == best.fingerprint
    assert rows(study) == trials

    more = json.loads(run(capfd, *command, 5).out)
    assert more["resumed"]
    assert sorted(trial["trial"] for trial in rows(study)) == ["0", "1", "2", "3", "4"]
    before = {t["trial"]: t["seconds"] for t in trials}
    assert before.items() <= {t["trial"]: t["seconds"] for t in rows(study)}.items()
    written = (study / "report.html").stat().st_mtime_ns
    changed = run(capfd, *command, 5, "--prefer", "fast")
    assert changed.code == 2
    assert (study / "report.html").stat().st_mtime_ns == written
    assert "search.prefer was 'best', is 'fast'" in changed.err

    warm = [*command[:2], "--output", tmp_path / "warm", *command[4:], 1, "--warm-start", study]
    (first,) = json.loads(run(capfd, *warm).out)["trials"]
    best_row = next(t for t in rows(study) if t["is_chosen"])
    assert first["parameters"]["model.hidden_dim"] == best_row["model.hidden_dim"]
    assert first["parameters"]["model.num_layers"] == best_row["model.num_layers"]


def test_a_grid_with_a_setting_that_diverges_records_it_and_goes_on_to_prefer_a_fast_one(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    study, file = tmp_path / "study", tmp_path / "grid.toml"
    file.write_text(
        "[training]\nweight_decay = 10.0\n[search]\nalgorithm = 'grid'\n[search.space]\n"
        "'training.learning_rate' = { choice = [0.003, 10.0] }\n"
        "'model.hidden_dim' = { choice = [8, 96] }\n"
    )
    command = ["tune", corpus_file, "--output", study, "--config", file, *SMALL]
    outcome = run(capfd, *command, "--prefer", "fast", "--tolerance", 100, "--json")
    assert outcome.code == 0, outcome.err
    trials = rows(study)
    assert [t["state"] for t in trials].count("failed") == 2
    for trial in trials:
        if trial["state"] == "failed":
            assert "diverged" in trial["error"]
            assert trial["training.learning_rate"] == 10.0
    worked = [t for t in trials if t["state"] != "failed"]
    (chosen,) = [t for t in trials if t["is_chosen"]]
    assert chosen["rows_per_second"] == max(t["rows_per_second"] for t in worked)
    assert load_model(study / "best").config.model.hidden_dim == chosen["model.hidden_dim"]


def test_a_study_whose_trials_all_fail_alike_is_stopped_and_says_it(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    outcome = run(
        capfd,
        *("tune", corpus_file, "--output", study, *SMALL, "--trials", 30),
        *("--set", "training.weight_decay=10.0", "--set", "training.learning_rate=10.0"),
        *("--set", "search.space={'model.hidden_dim' = {choice = [8, 12]}}"),
    )
    assert outcome.code == 1
    assert "most trials fail in the same way" in outcome.err
    assert "diverged" in outcome.err
    assert 3 <= len(rows(study)) < 10
    assert "diverged" in (study / "report.html").read_text()


def test_a_study_that_ran_out_of_time_is_carried_on_with(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    command = ["tune", corpus_file, "--output", study, *SMALL, *SPACE, "--trials", 9_999, "--json"]
    first = json.loads(run(capfd, *command, "--time-budget", "40s").out)
    ended = [trial for trial in first["trials"] if trial["state"] != "unfinished"]
    assert ended
    assert 0 < len(first["trials"]) < 9_999
    assert load_model(study / "best")
    more = json.loads(run(capfd, *command, "--time-budget", "10s").out)
    assert more["resumed"]
    assert len(more["trials"]) >= len(first["trials"])
    kept = {trial["trial"]: trial["seconds"] for trial in more["trials"]}
    assert all(kept[trial["trial"]] == trial["seconds"] for trial in ended)


def certain(label: str) -> dict[str, float]:
    """A label as probabilities of all labels."""
    return {name: float(name == label) for name in WORDS}


@pytest.mark.parametrize("kind", ["sets", "probabilities"])
def test_rows_of_several_labels_or_of_probabilities_are_searched_too(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    rows = labelled_rows(300)
    of_label = {"sets": lambda label: [label], "probabilities": certain}[kind]
    data = {"text": rows["text"], "label": list(map(of_label, rows["label"]))}
    pq.write_table(pa.table(data), tmp_path / "train.parquet")
    command = ["tune", tmp_path / "train.parquet", "--output", tmp_path / "s", *SMALL, *SPACE]
    outcome = run(capfd, *command, "--trials", 2, "--json")
    assert outcome.code == 0, outcome.err
    assert 0 <= json.loads(outcome.out)["best"]["metrics"]["macro_f1"] <= 1
    assert load_model(tmp_path / "s/best").kind.name == {"sets": "multi"}.get(kind, "single")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--concurrency", 999], "999 trials at once, of 1 workers of 1 CPUs each, do not fit"),
        (["--set", "training.workers_per_trial=99"], "of 99 workers of 1 CPUs each, do not fit"),
        (["--workers", 1, "--set", "training.workers_per_trial=2"], "less than the 2 workers"),
        (["--warm-start", "nowhere"], "is not a study"),
        (["--set", "search.algorithm=grid"], "so it has no grid"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_it_begins_and_leaves_nothing(
    capfd: pytest.CaptureFixture[str],
    corpus_file: Path,
    tmp_path: Path,
    options: list[object],
    message: str,
) -> None:
    outcome = run(capfd, "tune", corpus_file, "--output", tmp_path / "s", *SMALL, *options)
    assert outcome.code == 2, outcome.err
    assert message in outcome.err
    assert not (tmp_path / "s").exists()
