"""Tables in and out of the commands: current rows only, one snapshot, each part committed once."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog

from tests.commands import TINY, run
from tests.conftest import labelled_rows
from tests.stages.test_killed_moments import killed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

ROWS = pa.table({"id": list(range(60)), "day": [1, 2, 3] * 20, **labelled_rows(60)})
ADDED = ["predicted_label", "predicted_score"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Version 2 of a partitioned Delta table: some rows deleted, some updated."""
    path = tmp_path / "in"
    write_deltalake(path, ROWS, partition_by=["day"])
    DeltaTable(path).delete("id < 5")
    DeltaTable(path).update(updates={"text": "'goal team'"}, predicate="id >= 55")
    return path


def sorted_rows(rows: pa.Table) -> list[dict[str, object]]:
    return sorted(rows.to_pylist(), key=lambda row: row["id"])


def parts_of(output: Path) -> pa.Table:
    paths = sorted(output.rglob("[!.]*.parquet"))
    return pa.concat_tables([pq.ParquetFile(path).read() for path in paths])


def test_a_delta_table_is_predicted_as_it_is_now_and_finished_as_it_was(
    capfd: pytest.CaptureFixture[str], model: Path, table: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = ["batch-predict", table, "--model", model, "--output", output, "--json"]
    assert json.loads(run(capfd, *command, "--dry-run").out)["rows"] == 55
    result = json.loads(run(capfd, *command).out)
    assert (result["rows_in"], result["rows_out"]) == (55, 55)
    predicted = parts_of(output)
    now = sorted_rows(DeltaTable(table).to_pyarrow_table())
    assert sorted_rows(predicted.drop_columns(ADDED)) == now
    manifest = json.loads((output / "_manifest.json").read_text())
    assert manifest["settings"]["snapshots"] == {str(table): "2"}
    assert json.loads(run(capfd, *command).out)["parts_written"] == 0
    assert run(capfd, "verify", output).code == 0

    DeltaTable(table).delete("id = 30")
    part = next(output.rglob("*.parquet"))
    part.unlink()
    refused = run(capfd, *command)
    assert refused.code == 2
    assert f"snapshots was {{'{table}': '2'}}, is {{'{table}': '3'}}" in refused.err
    assert "add --snapshot 2." in refused.err
    assert json.loads(run(capfd, *command, "--snapshot", 2).out)["parts_written"] == 1
    assert sorted_rows(parts_of(output).drop_columns(ADDED)) == now
    assert run(capfd, "verify", output).code == 0
    part.unlink()
    assert f"{part.relative_to(output)} is missing" in run(capfd, "verify", output).out


def test_an_iceberg_table_is_predicted_and_evaluated(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    catalog = SqlCatalog("c", uri=f"sqlite:///{tmp_path}/c.db", warehouse=f"file://{tmp_path}/w")
    catalog.create_namespace("n")
    table = catalog.create_table("n.t", schema=ROWS.schema)
    table.append(ROWS)
    table.delete("id < 5")
    source, output = tmp_path / "w/n/t", tmp_path / "out"
    command = ["batch-predict", source, "--model", model, "--output", output, "--json"]
    assert json.loads(run(capfd, *command).out)["rows_out"] == 55
    predicted = parts_of(output)
    assert sorted_rows(predicted.drop_columns(ADDED)) == sorted_rows(table.scan().to_arrow())
    assert run(capfd, "verify", output).code == 0

    measured = tmp_path / "measured"
    command = ["evaluate", source, "--model", model, "--output", measured, "--json"]
    assert json.loads(run(capfd, *command).out)["num_rows"] == 55
    snapshot = table.current_snapshot().snapshot_id
    table.delete("id = 30")
    refused = run(capfd, *command)
    assert refused.code == 2
    assert f"add --snapshot {snapshot}." in refused.err
    assert "nothing to do" in run(capfd, *command, "--snapshot", snapshot).err


def test_a_model_is_trained_on_a_table(
    capfd: pytest.CaptureFixture[str], table: Path, tmp_path: Path
) -> None:
    output = tmp_path / "m"
    short = [*TINY, "--set", "training.max_epochs=1", "--workers", 1]
    command = ["train", table, "--output", output, *short, "--json"]
    assert run(capfd, *command).code == 0
    metadata = json.loads((output / "model.json").read_text())
    assert metadata["run"][f"snapshots.{table}"] == "2"
    corpus = metadata["corpus"]
    assert corpus["num_training"] + corpus["num_validation"] == 55
    DeltaTable(table).delete("id = 30")
    refused = run(capfd, *command)
    assert (refused.code, "add --snapshot 2." in refused.err) == (2, True)
    assert "nothing to do" in run(capfd, *command, "--snapshot", 2).err


@pytest.fixture
def hive(tmp_path: Path) -> Path:
    """Two Parquet files in Hive directories."""
    source = tmp_path / "in"
    for index, country in enumerate(["de", "a b"]):
        (source / f"country={country}").mkdir(parents=True)
        rows = ROWS.slice(index * 30, 30)
        pq.write_table(rows, source / f"country={country}/a.parquet", row_group_size=10)
    return source


def committed(output: Path) -> pa.Table:
    return DeltaTable(output).to_pyarrow_table()


def test_the_parts_become_a_delta_table_that_keeps_up_with_the_input(
    capfd: pytest.CaptureFixture[str], model: Path, hive: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = ["batch-predict", hive, "--model", model, "--output", output, "--json"]
    run(capfd, *command)  # as Parquet: the parts are the same
    outcome = run(capfd, *command, "--format", "delta")
    assert json.loads(outcome.out)["parts_written"] == 0
    assert "The parts are version 0 of the Delta table." in outcome.err
    table = committed(output)
    assert table.column_names == [*ROWS.column_names, *ADDED, "country"]
    assert sorted_rows(table.select(ROWS.column_names)) == ROWS.to_pylist()
    assert sorted_rows(table.drop_columns("country")) == sorted_rows(parts_of(output))
    assert table.filter(pa.compute.field("country") == "a b").num_rows == 30
    assert "Delta table" not in run(capfd, *command, "--format", "delta").err

    pq.write_table(ROWS.slice(0, 7), hive / "country=de/b.parquet")
    pq.write_table(ROWS.slice(30, 3), hive / "country=a b/a.parquet")
    outcome = run(capfd, *command)  # a table stays a table
    assert "The parts are version 1 of the Delta table." in outcome.err
    assert committed(output).num_rows == 30 + 7 + 3
    assert DeltaTable(output).version() == 1
    assert (output / "_SUCCESS").exists()
    assert run(capfd, "verify", output).code == 0

    again = tmp_path / "again"
    command = ["batch-predict", output, "--model", model, "--output", again, "--json"]
    outcome = run(capfd, *command, "--columns", "id,country")
    assert json.loads(outcome.out)["rows_out"] == 40


def test_a_column_that_delta_does_not_have_is_refused_before_work_starts(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    rows = ROWS.append_column("n", pa.array(range(60), pa.uint16()))
    pq.write_table(rows, tmp_path / "in.parquet")
    output = tmp_path / "out"
    command = ["batch-predict", tmp_path / "in.parquet", "--model", model, "--output", output]
    for extra in ([], ["--dry-run"]):
        refused = run(capfd, *command, "--format", "delta", *extra)
        assert refused.code == 2
        assert "Column 'n' of" in refused.err
        assert "has type uint16, which Delta tables do not have" in refused.err
    assert not output.exists()


@pytest.mark.fault
@pytest.mark.parametrize(
    ("moment", "versions"),
    [
        ("batch_predict.commit = kill", 0),
        ("delta_output._transaction = kill", 0),
        (
            "batch_predict._Run._commit = lambda run: (commit(run.storage, run.all_parts), kill())",
            1,
        ),
    ],
)
def test_a_command_killed_around_its_commit_commits_once(
    capfd: pytest.CaptureFixture[str],
    model: Path,
    hive: Path,
    tmp_path: Path,
    moment: str,
    versions: int,
) -> None:
    output = tmp_path / "out"
    command = ["batch-predict", hive, "--model", model, "--output", output, "--format", "delta"]
    imported = (
        "from distlstm.stages import batch_predict\n"
        "from distlstm.stages.prediction import delta_output\n"
        "from distlstm.stages.prediction.delta_output import commit\n"
    )
    killed(imported + moment, *command)
    assert DeltaTable.is_deltatable(str(output)) == bool(versions)
    assert not (output / "_SUCCESS").exists()
    assert run(capfd, *command).code == 0
    assert DeltaTable(output).version() == 0
    assert sorted_rows(committed(output).select(ROWS.column_names)) == ROWS.to_pylist()
    assert (output / "_SUCCESS").exists()
