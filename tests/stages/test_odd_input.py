"""Tests of `batch-predict` on odd and damaged input: what comes out, and what is named."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.commands import run

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
TEXT = "goal team league"


def write(path: Path, rows: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), path, **options)
    return path


def texts(count: int) -> list[str]:
    return [f"{TEXT} {i}" for i in range(count)]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Everything that is odd and must come out."""
    root = tmp_path / "in"
    write(root / "a.parquet", {"text": [*texts(2), None, "", " \n"], "n": list(range(5))})
    write(root / "b/order.parquet", {"n": [1.5], "more": ["x"], "text": [TEXT]})
    write(root / "b/numbers.parquet", {"text": [1, 2, None]})
    write(root / "b/bytes.parquet", {"text": [b"\xff\xfe", TEXT.encode()]})
    write(root / "b/long.parquet", {"text": ["goal " * 2_000_000, TEXT]})
    write(root / "day=1/none.parquet", {"text": pa.array([], pa.string())})
    write(root / "day=1/groups.parquet", {"text": texts(1_000)}, row_group_size=1)
    many = ["".join(f"{TEXT} {i} {j} " for j in range(9)) for i in range(60_000)]
    write(root / "one_group.parquet", {"text": many, "i": list(range(60_000))}, compression="none")
    for i in range(300):
        write(root / f"small/{i:03d}.parquet", {"text": texts(10), "i": [i] * 10})
    (root / "c.csv.gz").write_bytes(gzip.compress(b'zip,text\n007,"goal, team"\n,\n'))
    (root / "d.jsonl").write_text('{"text": "goal"}\n{"text": null, "n": 1}\n{"text": 5}\n')
    return root


def parts_of(source: Path, lake: Path, output: Path) -> list[Path]:
    """The parts that mirror an input file, in order."""
    below = output / source.relative_to(lake)
    if below.suffix != ".parquet":
        return [below.with_name(f"{below.name}.parquet")]
    return [below] if below.exists() else sorted(below.parent.glob(f"{below.stem}-*-of-*.parquet"))


def test_every_odd_row_comes_out_in_its_place(
    capfd: pytest.CaptureFixture[str], model: Path, lake: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = ["batch-predict", lake, "--model", model, "--output", output, "--json"]
    outcome = run(capfd, *command)
    assert outcome.code == 0, outcome.err
    sources = [path for path in lake.rglob("*") if path.is_file()]
    found = {part for source in sources for part in parts_of(source, lake, output)}
    assert found == set(output.rglob("*.parquet"))
    for source in lake.rglob("*.parquet"):
        before = pq.ParquetFile(source).read()
        parts = [pq.ParquetFile(path).read() for path in parts_of(source, lake, output)]
        after = pa.concat_tables(parts)
        assert after.select(before.column_names).equals(before), source
        assert after["predicted_label"].null_count == after["predicted_score"].null_count
    assert len(parts_of(lake / "one_group.parquet", lake, output)) > 2
    manifest = json.loads((output / "_manifest.json").read_text())
    assert manifest["rows_in"] == manifest["rows_out"] == 64_018
    assert manifest["rows_without_prediction"] == {
        "null": 4,
        "empty": 2,
        "not_text": 2,
        "not_utf8": 1,
    }
    assert manifest["truncated_share"] > 0
    labels = pq.ParquetFile(output / "b/long.parquet").read()["predicted_label"].to_pylist()
    assert labels == ["sport", "sport"]
    assert pq.read_table(output / "c.csv.gz.parquet")["zip"].to_pylist() == ["007", None]
    assert run(capfd, "verify", output).code == 0


def damage_footer(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def damage_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    where = content.find(b"goal team league 7")
    content[where] ^= 1
    path.write_bytes(bytes(content))


def make_huge(path: Path) -> None:
    write(path, {"text": ["goal " * 2**24]})


@pytest.mark.parametrize(
    ("damage", "rows", "message"),
    [
        (damage_footer, {"text": texts(9)}, "bad.parquet as parquet"),
        (damage_page, {"text": texts(9)}, "bad.parquet as parquet"),
        (make_huge, {"text": texts(9)}, "80 MiB in column 'text'"),
        (None, {"body": texts(9)}, "No column 'text' in"),
        (None, {"text": texts(9), "predicted_score": [0] * 9}, "already has a column"),
    ],
)
def test_a_file_that_cannot_be_predicted_is_named_after_all_others_are_done(
    capfd: pytest.CaptureFixture[str],
    model: Path,
    tmp_path: Path,
    damage: Callable[[Path], None] | None,
    rows: dict[str, Any],
    message: str,
) -> None:
    write(tmp_path / "in/a.parquet", {"text": texts(9)})
    bad = write(
        tmp_path / "in/bad.parquet",
        rows,
        compression="none",
        write_page_checksum=True,
        use_dictionary=False,
    )
    write(tmp_path / "in/c.parquet", {"text": texts(9)})
    if damage is not None:
        damage(bad)
    output = tmp_path / "out"
    command = ["batch-predict", tmp_path / "in", "--model", model, "--output", output]
    outcome = run(capfd, *command)
    assert outcome.code == 1
    assert message in outcome.err
    assert "bad.parquet" in outcome.err
    assert {path.name for path in output.iterdir()} == {
        "a.parquet", "c.parquet", "_manifest.json",
    }  # fmt: skip
    verified = run(capfd, "verify", output)
    assert verified.code == 1
    assert "bad.parquet" in verified.out
    bad.unlink()
    assert json.loads(run(capfd, *command, "--json").out)["parts_reused"] == 2
    assert run(capfd, "verify", output).code == 0


def test_an_output_among_the_input_or_of_another_input_is_refused(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "1/a.parquet", tmp_path / "2/a.parquet"
    for path in (first, second):
        write(path, {"text": texts(3)})
    output = tmp_path / "out"
    options = ["--model", model, "--output"]
    assert run(capfd, "batch-predict", first, *options, output).code == 0
    other = run(capfd, "batch-predict", second, *options, output)
    assert other.code == 2
    assert f"contains the predictions of {first}" in other.err
    inside = run(capfd, "batch-predict", tmp_path / "1", *options, tmp_path / "1/out")
    assert inside.code == 2
    assert "lies inside the input" in inside.err
    assert not (tmp_path / "1/out").exists(), "refused at the first run"


def test_how_to_read_is_part_of_a_command_on_an_output(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.dat").write_text(f'1;"{TEXT} \\"x\\""\n2;NA\n')
    (source / "README").write_text("no data")
    options = ["--model", model, "--output", output]
    assert "README, a.dat" in run(capfd, "batch-predict", source, *options).err
    reader = ["--input-format", "csv", "--header", "id,text", "--escape", "\\"]
    (source / "README").unlink()
    command = ["batch-predict", source, *options, *reader, "--null-value", "NA"]
    assert run(capfd, *command).code == 0
    rows = pq.read_table(output / "a.dat.parquet").to_pylist()
    assert [row["text"] for row in rows] == [f'{TEXT} "x"', None]
    assert [row["predicted_label"] for row in rows] == ["sport", None]
    again = run(capfd, *command, "--json")
    assert json.loads(again.out)["parts_reused"] == 1
    other = run(capfd, "batch-predict", source, *options, *reader)
    assert other.code == 2
    assert "reader was" in other.err
    assert run(capfd, "verify", output).code == 0
    useless = run(
        capfd, "evaluate", source, "--model", model, "--input-format", "jsonl", "--quote", ""
    )
    assert useless.code == 2
    assert "quote has no effect" in useless.err


def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    write(source / "a.parquet", {"text": [*texts(40), None]})
    for i in range(16):
        write(source / f"none/{i}.parquet", {"text": pa.array([], pa.string())})
    command = ["batch-predict", source, "--model", model, "--output", output]
    before = json.loads(run(capfd, *command, "--dry-run", "--json").out)
    assert not output.exists()
    assert (before["files"], before["rows"], before["rows_are_exact"]) == (17, 41, True)
    assert (before["parts"], before["parts_done"], before["rows_without_text"]) == (17, 0, 1)
    assert before["rows_per_second_per_worker"] > 0
    assert before["tokens_per_row"] == pytest.approx(4 * 40 / 41)
    run(capfd, *command)
    write(source / "b.parquet", {"text": texts(9)})
    after = json.loads(run(capfd, *command, "--dry-run", "--json").out)
    assert (after["rows"], after["parts"], after["parts_done"]) == (50, 18, 17)
    assert not (output / "b.parquet").exists()
    assert run(capfd, *command, "--dry-run").code == 0
