"""Tests of `batch-predict`, `evaluate` and `predict`: every row once, in order, all agreeing."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sk

from tests.commands import TINY, run
from tests.conftest import labelled_rows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A nested input with several files, one of them odd."""
    root = tmp_path / "in"
    (root / "2026/day=1").mkdir(parents=True)
    rows = labelled_rows(60)
    table = pa.table({"id": list(range(60)), **rows})
    pq.write_table(table.slice(0, 40), root / "2026/a.parquet", row_group_size=10)
    pq.write_table(table.slice(40), root / "2026/day=1/b.parquet")
    pq.write_table(table.slice(0, 0), root / "none.parquet")
    odd = pa.table({"id": [1, 2, 3, 4], "text": [b"goal team", None, b" ", b"\xff\xfe"]})
    pq.write_table(odd, root / "odd.parquet")
    return root


def parts(output: Path) -> dict[str, int]:
    return {
        str(path.relative_to(output)): path.stat().st_mtime_ns for path in output.rglob("*.parquet")
    }


def test_every_row_comes_out_once_in_order_with_its_columns(
    capfd: pytest.CaptureFixture[str], model: Path, lake: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = ["batch-predict", lake, "--model", model, "--output", output, "--json"]
    result = json.loads(run(capfd, *command).out)
    assert (result["rows_in"], result["rows_out"], result["rows_without_prediction"]) == (64, 64, 3)
    names = {"2026/a.parquet", "2026/day=1/b.parquet", "none.parquet", "odd.parquet"}
    assert set(parts(output)) == names
    for name in names:
        before, after = pq.read_table(lake / name), pq.ParquetFile(output / name).read()
        source = pq.ParquetFile(lake / name).read()
        assert after.select(source.column_names).equals(source), name
        assert after.column_names[-2:] == ["predicted_label", "predicted_score"]
        assert after.schema.field("predicted_score").type == pa.float32()
        assert before.num_rows == after.num_rows
    odd = pq.ParquetFile(output / "odd.parquet").read()
    assert odd["predicted_label"].to_pylist() == ["sport", None, None, None]
    assert odd["predicted_score"].null_count == 3
    manifest = json.loads((output / "_manifest.json").read_text())
    assert manifest["rows_without_prediction"] == {"null": 1, "empty": 1, "not_utf8": 1}
    assert sum(manifest["label_counts"].values()) == sum(manifest["score_histogram"]) == 61
    assert (output / "_SUCCESS").exists()


def test_a_second_run_does_only_what_is_missing(
    capfd: pytest.CaptureFixture[str], model: Path, lake: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = ["batch-predict", lake, "--model", model, "--output", output, "--json"]
    run(capfd, *command)
    before = parts(output)
    (output / "odd.parquet").unlink()
    damaged = output / "2026/day=1/b.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    shutil.copy(lake / "2026/a.parquet", lake / "new.parquet")
    result = json.loads(run(capfd, *command).out)
    assert (result["parts_written"], result["parts_reused"]) == (3, 2)
    after = parts(output)
    assert after["2026/a.parquet"] == before["2026/a.parquet"]
    assert result["rows_out"] == 104
    assert json.loads(run(capfd, *command).out)["parts_written"] == 0


def test_columns_top_k_and_min_score(
    capfd: pytest.CaptureFixture[str], model: Path, lake: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    options = ["--columns", "id", "--top-k", 2, "--min-score", 1.0]
    outcome = run(capfd, "batch-predict", lake, "--model", model, "--output", output, *options)
    assert outcome.code == 0
    table = pq.ParquetFile(output / "odd.parquet").read()
    assert table.column_names == [
        *("id", "predicted_label", "predicted_score", "predicted_labels", "predicted_scores")
    ]
    for row in table.to_pylist():
        assert (row["predicted_label"] is not None) == (row["predicted_score"] == 1.0)
    assert table["predicted_score"].null_count == 3
    first = table.slice(0, 1).to_pylist()[0]
    assert len(first["predicted_labels"]) == 2
    assert first["predicted_scores"][0] == first["predicted_score"]
    assert table["predicted_labels"][1].as_py() is None


def test_csv_and_json_lines_keep_their_values(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("zip,text\n007,goal team\n,bank\n")
    (tmp_path / "in/b.jsonl").write_text('{"text": "下雨"}\n{"text": 5, "n": 1}\n')
    output = tmp_path / "out"
    outcome = run(capfd, "batch-predict", tmp_path / "in", "--model", model, "--output", output)
    assert outcome.code == 0
    rows = pq.read_table(output / "a.csv.parquet").to_pylist()
    assert [row["zip"] for row in rows] == ["007", None]
    assert [row["predicted_label"] for row in rows] == ["sport", "money"]
    rows = pq.read_table(output / "b.jsonl.parquet").to_pylist()
    assert (rows[0]["predicted_label"], rows[1]["text"]) == ("天气", "5")


def test_an_unreadable_file_fails_the_run_after_the_others_are_done(
    capfd: pytest.CaptureFixture[str], model: Path, lake: Path, tmp_path: Path
) -> None:
    (lake / "broken.parquet").write_bytes(b"PAR1 not really")
    output = tmp_path / "out"
    outcome = run(capfd, "batch-predict", lake, "--model", model, "--output", output)
    assert outcome.code == 1
    assert "broken.parquet" in outcome.err
    assert len(parts(output)) == 4
    assert not (output / "_SUCCESS").exists()


def test_another_model_is_refused_with_both_fingerprints(
    capfd: pytest.CaptureFixture[str], model: Path, lake: Path, corpus_file: Path, tmp_path: Path
) -> None:
    output, other = tmp_path / "out", tmp_path / "other"
    run(capfd, "batch-predict", lake, "--model", model, "--output", output)
    run(capfd, "train", corpus_file, "--output", other, *TINY, "--workers", 1, "--seed", 5)
    outcome = run(capfd, "batch-predict", lake, "--model", other, "--output", output)
    assert outcome.code == 2
    assert "model was '" in outcome.err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"text": ["a"], "predicted_label": ["x"]}, "already has a column 'predicted_label'"),
        ({"body": ["a"]}, "It has: 'body'"),
        ({"text": [1]}, "not text"),
    ],
)
def test_input_that_cannot_be_predicted_is_a_user_error(
    capfd: pytest.CaptureFixture[str],
    model: Path,
    tmp_path: Path,
    rows: dict[str, list[object]],
    message: str,
) -> None:
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    outcome = run(
        capfd, "batch-predict", tmp_path / "a.parquet", "--model", model, "--output", tmp_path / "o"
    )
    assert outcome.code == 2
    assert message in outcome.err


def test_evaluate_agrees_with_scikit_learn_and_with_the_other_commands(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    rows = labelled_rows(90)
    rows["label"][:9] = ["never seen <b>"] * 3 + ["sport", "money", "天气"] * 2
    path, out = tmp_path / "test.parquet", tmp_path / "predicted"
    pq.write_table(pa.table(rows), path)
    command = ["evaluate", path, "--model", model, "--output", tmp_path / "e", "--json"]
    report = json.loads(run(capfd, *command).out)
    run(capfd, "batch-predict", path, "--model", model, "--output", out)
    predicted = pq.read_table(out / "test.parquet")["predicted_label"].to_pylist()
    expected = {
        "accuracy": sk.accuracy_score(rows["label"], predicted),
        "macro_f1": sk.f1_score(rows["label"], predicted, average="macro", zero_division=0),
        "weighted_f1": sk.f1_score(rows["label"], predicted, average="weighted", zero_division=0),
        "mcc": sk.matthews_corrcoef(rows["label"], predicted),
    }
    assert {name: report[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert report["labels"][-1] == "never seen <b>"
    errors = pq.read_table(tmp_path / "e/errors.parquet")
    assert errors.num_rows == sum(a != b for a, b in zip(rows["label"], predicted, strict=True))
    page = (tmp_path / "e/report.html").read_text()
    assert "never seen &lt;b&gt;" in page
    assert "never seen <b>" not in page
    assert "http" not in page.replace("http-equiv", "")
    lines = run(capfd, "predict", "--model", model, *rows["text"][:5]).out.splitlines()
    assert [json.loads(line)["predicted_label"] for line in lines] == predicted[:5]


def test_rows_that_the_linear_partner_answers_are_counted_and_the_same_for_all_commands(
    capfd: pytest.CaptureFixture[str], model: Path, lake: Path, tmp_path: Path
) -> None:
    sure, unsure = tmp_path / "sure", tmp_path / "unsure"
    for path, lead in ((sure, 0.0), (unsure, 1e6)):
        shutil.copytree(model, path)
        metadata = json.loads((path / "model.json").read_text())
        metadata["cascade"] = {"lead": lead, "temperature": 50.0, "share": 0.5}
        (path / "model.json").write_text(json.dumps(metadata))
    shares, scores = {}, {}
    for path in (sure, unsure):
        output = tmp_path / f"out-{path.name}"
        command = ["batch-predict", lake, "--model", path, "--output", output, "--json"]
        shares[path.name] = json.loads(run(capfd, *command).out)["partner_share"]
        manifest = json.loads((output / "_manifest.json").read_text())
        assert manifest["partner_share"] == shares[path.name]
        rows = pq.ParquetFile(output / "2026/a.parquet").read().slice(0, 5).to_pylist()
        shown = run(capfd, "predict", "--model", path, *(row["text"] for row in rows)).out
        for row, line in zip(rows, shown.splitlines(), strict=True):
            alone = json.loads(line)
            assert alone["predicted_label"] == row["predicted_label"]
            assert alone["predicted_score"] == pytest.approx(row["predicted_score"], abs=1e-5)
        scores[path.name] = [row["predicted_score"] for row in rows]
    assert shares == {"sure": 61 / 64, "unsure": 0.0}
    assert scores["sure"] != scores["unsure"]
    mixed = run(capfd, "batch-predict", lake, "--model", unsure, "--output", tmp_path / "out-sure")
    assert mixed.code == 2
    assert "model" in mixed.err
