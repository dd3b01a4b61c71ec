"""Tests of `batch-predict` and `verify` under faults: killed processes, full disks, damaged files.

After every fault the same command is run again, and `check_whole` sees that nothing is missing,
doubled, or computed a second time.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.data.files import find_files
from distlstm.data.units import SMALL_UNIT, Unit, cut_into_units
from distlstm.stages import batch_predict
from distlstm.stages.batch_predict import _PredictWork
from distlstm.stages.prediction import actor_pool
from distlstm.stages.prediction.actor_pool import Done, GivenUp, map_bundles
from distlstm.stages.run.session import Resources, ray_session
from distlstm.worker_range import WorkerRange
from tests.commands import run
from tests.conftest import WORDS, labelled_rows
from tests.stages.test_interruption import processes_of, start, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

SECONDS = 600
"""Within which whatever is waited for must come."""
AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
"""Of a driver that was killed, these outlive it for a while."""
LABELS = sorted(WORDS)

Parts = dict[str, tuple[int, bytes]]
"""Time of the last change, and content, by name."""


@dataclass(frozen=True)
class Job:
    """A command, and the mark that its processes carry in their environment."""

    source: Path
    model: Path
    output: Path
    marker: str

    @property
    def arguments(self) -> list[str]:
        options = ["--model", self.model, "--output", self.output, "--workers", 2, "--json"]
        return ["batch-predict", str(self.source), *map(str, options)]

    def start(self) -> subprocess.Popen[str]:
        return start(self.marker, *self.arguments)

    def wait_for_parts(self, process: subprocess.Popen[str], count: int) -> None:
        """Until there are at least so many parts; the command must be running still."""
        wait_until(
            lambda: len(parts_of(self.output)) >= count or process.poll() is not None, SECONDS
        )
        assert process.poll() is None, process.communicate()

    def wait_for_end_of_all(self, *, but: frozenset[str] = frozenset()) -> None:
        """Until no process of the command is left."""
        wait_until(lambda: processes_of(self.marker) <= but, SECONDS)


def parts_of(output: Path) -> Parts:
    return {
        str(path.relative_to(output)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in output.rglob("*.parquet")
    }


def pids_of(marker: str, title: str = "") -> list[int]:
    """Live processes with this marker whose command line begins so."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"DISTLSTM_TEST={marker}\0".encode() not in (process / "environ").read_bytes():
                continue
            if (process / "cmdline").read_bytes().startswith(title.encode()):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The result of a command that must end well."""
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return dict(json.loads(out))


def manifest_of(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / "_manifest.json").read_text()))


def check_rows(source: Path, output: Path) -> None:
    """Every input file's rows come out in order, with their columns, and with the right label."""
    files = sorted(source.glob("*.parquet"))
    pieces = {file: [output / file.name, *sorted(output.glob(f"{file.stem}-*"))] for file in files}
    pieces = {file: [path for path in paths if path.exists()] for file, paths in pieces.items()}
    assert {p for paths in pieces.values() for p in paths} == set(output.glob("*.parquet"))
    for file, paths in pieces.items():
        before = pq.ParquetFile(file).read()
        after = pa.concat_tables(pq.ParquetFile(path).read() for path in paths)
        assert after.select(before.column_names).equals(before), file
        assert after["predicted_label"].equals(before["label"]), file


def check_whole(
    capfd: pytest.CaptureFixture[str],
    source: Path,
    output: Path,
    *,
    result: dict[str, Any],
    kept: Parts,
    reused: int | None = None,
) -> None:
    """The output is complete, and parts that were finished before are the same files still."""
    check_rows(source, output)
    after = parts_of(output)
    assert {name: after.get(name) for name in kept} == kept
    reused = len(kept) if reused is None else reused
    counts = {"parts_written": len(after) - reused, "parts_reused": reused}
    in_manifest = manifest_of(output)["run"]
    assert {name: result[name] for name in counts} == counts
    assert {name: in_manifest[name] for name in counts} == counts
    assert [row["name"] for row in manifest_of(output)["parts"]] == sorted(after)
    assert (output / "_SUCCESS").exists()
    assert left_over(output) == []
    assert run(capfd, "verify", output).code == 0


def left_over(output: Path) -> list[str]:
    return [p.name for p in output.rglob("*") if p.name == "_lock" or p.name.startswith(".tmp-")]


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files enough for seconds of work; the first is cut into parts. `noise` gives them size."""
    root = tmp_path_factory.mktemp("lake")
    num_rows = 48_000
    labels = [LABELS[i % 3] for i in range(num_rows)]
    texts = [
        f"{i} " + " ".join(WORDS[label][(i * 7 + k * k) % 6] for k in range(170))
        for i, label in enumerate(labels)
    ]
    noise = [os.urandom(80) for _ in range(num_rows)]
    table = pa.table({"id": range(num_rows), "noise": noise, "text": texts, "label": labels})
    start = 0
    for index, size in enumerate([12_000, *[2_000] * 18]):
        path = root / f"{index:02}.parquet"
        pq.write_table(table.slice(start, size), path, row_group_size=1_000, compression="zstd")
        start += size
    return root


@pytest.fixture
def job(lake: Path, model: Path, tmp_path: Path) -> Iterator[Job]:
    """A command on the lake; what a failed test left of its processes is ended."""
    job = Job(lake, model, tmp_path / "out", tmp_path.as_posix())
    yield job
    for pid in pids_of(job.marker):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def small_lake(tmp_path: Path) -> Path:
    """Four small files."""
    root = tmp_path / "in"
    root.mkdir()
    for name in "abcd":
        write_rows(root / f"{name}.parquet", 200)
    return root


def write_rows(path: Path, num_rows: int) -> None:
    noise = [os.urandom(40) for _ in range(num_rows)]
    pq.write_table(pa.table({"noise": noise, **labelled_rows(num_rows)}), path)


@pytest.fixture
def small_job(small_lake: Path, model: Path, tmp_path: Path) -> Job:
    return Job(small_lake, model, tmp_path / "out", "")


def run_job(capfd: pytest.CaptureFixture[str], job: Job) -> dict[str, Any]:
    outcome = run(capfd, *job.arguments)
    assert outcome.code == 0, outcome.err
    return dict(json.loads(outcome.out))


def test_a_killed_worker_is_replaced_within_the_run(
    capfd: pytest.CaptureFixture[str], job: Job
) -> None:
    process = job.start()
    job.wait_for_parts(process, 1)
    wait_until(lambda: len(pids_of(job.marker, "ray::_Worker")) == 2, SECONDS)
    workers = pids_of(job.marker, "ray::_Worker")
    before = parts_of(job.output)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    result = ended(process)
    check_whole(capfd, job.source, job.output, result=result, kept=before, reused=0)


def test_a_driver_that_is_killed_twice_loses_nothing_and_does_nothing_again(
    capfd: pytest.CaptureFixture[str], job: Job
) -> None:
    first = job.start()
    job.wait_for_parts(first, 1)
    first.kill()
    once = parts_of(job.output)
    # At once, while workers of the first may be at their last part still.
    second = job.start()
    job.wait_for_parts(second, len(once) + 3)
    second.kill()
    job.wait_for_end_of_all(but=frozenset(AGENTS))
    twice = parts_of(job.output)
    assert once.items() <= twice.items()
    assert not (job.output / "_SUCCESS").exists()
    result = ended(job.start())
    check_whole(capfd, job.source, job.output, result=result, kept=twice)


def test_a_second_command_and_verify_are_turned_away_from_an_output_in_work(
    capfd: pytest.CaptureFixture[str], job: Job
) -> None:
    process = job.start()
    wait_until(lambda: (job.output / "_lock").exists() or process.poll() is not None, SECONDS)
    second, verified = run(capfd, *job.arguments), run(capfd, "verify", job.output)
    assert process.poll() is None, process.communicate()
    assert (second.code, verified.code) == (2, 2)
    assert "Another command is at work" in second.err
    assert "A command is at work on" in verified.err, "and counts no faults"
    check_whole(capfd, job.source, job.output, result=ended(process), kept={})
    assert run(capfd, "verify", job.output).code == 0


def test_ctrl_c_keeps_what_is_finished_and_leaves_nothing_behind(
    capfd: pytest.CaptureFixture[str], job: Job
) -> None:
    process = job.start()
    job.wait_for_parts(process, 1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the foreground
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    assert "Resume with the same command" in err
    before = parts_of(job.output)
    job.wait_for_end_of_all()
    assert parts_of(job.output) == before
    assert left_over(job.output) == []
    assert [row["name"] for row in manifest_of(job.output)["parts"]] == sorted(before)
    assert not (job.output / "_SUCCESS").exists()
    check_whole(capfd, job.source, job.output, result=ended(job.start()), kept=before)


FULL_DISK = """
mount -t tmpfs -o size=2m tmpfs "$OUTPUT" || exit 99
"$@" >"$COPIES/first.out" 2>"$COPIES/first.err"
echo $? >"$COPIES/first.code"
cp -a "$OUTPUT" "$COPIES/first"
head -c 2m /dev/zero >"$OUTPUT/.filler" 2>/dev/null
"$@" >"$COPIES/second.out" 2>"$COPIES/second.err"
echo $? >"$COPIES/second.code"
rm "$OUTPUT/.filler"
mount -o remount,size=64m "$OUTPUT" || exit 99
"$@" >"$COPIES/third.out" 2>"$COPIES/third.err"
echo $? >"$COPIES/third.code"
cp -a "$OUTPUT" "$COPIES/third"
"""
"""In a mount namespace of its own, so that the disk is full for this command alone."""


def test_a_full_disk_is_named_and_finished_parts_stay_until_there_is_room(
    capfd: pytest.CaptureFixture[str], job: Job, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    for directory in (job.output, copies):
        directory.mkdir()
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", job.output]
    if (refused := subprocess.run(probe, capture_output=True, text=True)).returncode:
        pytest.skip(f"no mount namespace of one's own here: {refused.stderr.strip()}")
    names = {"OUTPUT": str(job.output), "COPIES": str(copies), "DISTLSTM_TEST": job.marker}
    command = [sys.executable, "-m", "distlstm", *job.arguments]
    subprocess.run(
        ["unshare", "--mount", "sh", "-c", FULL_DISK, "sh", *command],
        env={**os.environ, **names},
        check=True,
        timeout=2 * SECONDS,
    )
    for attempt in ("first", "second"):
        err = (copies / f"{attempt}.err").read_text()
        assert (copies / f"{attempt}.code").read_text() == "1\n", err
        assert f"A file in {job.output} cannot be written" in err
        assert "No space left on device" in err
        assert "Free some space" in err
        assert "should not happen" not in err
    before = parts_of(copies / "first")
    assert left_over(copies / "first") == []
    assert not (copies / "first/_SUCCESS").exists()
    assert 0 < len(before) < 20
    assert (copies / "third.code").read_text() == "0\n", (copies / "third.err").read_text()
    result = json.loads((copies / "third.out").read_text())
    check_whole(capfd, job.source, copies / "third", result=result, kept=before)


def test_damaged_and_lost_parts_are_named_and_just_those_are_made_anew(
    capfd: pytest.CaptureFixture[str], small_job: Job
) -> None:
    output = small_job.output
    run_job(capfd, small_job)
    before = parts_of(output)
    cut_short, with_gap = before["a.parquet"][1][:-5], before["b.parquet"][1]
    (output / "a.parquet").write_bytes(cut_short)
    (output / "b.parquet").write_bytes(with_gap[:1000] + with_gap[1016:])
    (output / "c.parquet").unlink()
    outcome = run(capfd, "verify", output)
    assert outcome.code == 1
    faults = [line for line in outcome.out.splitlines() if line.startswith("fault ")]
    assert [fault.split(":")[0] for fault in faults[:3]] == [
        "fault a.parquet is damaged",
        "fault b.parquet is damaged",
        "fault c.parquet is missing",
    ]
    assert not [fault for fault in faults if "d.parquet" in fault]
    result = run_job(capfd, small_job)
    kept = {"d.parquet": before["d.parquet"]}
    check_whole(capfd, small_job.source, output, result=result, kept=kept)


def test_changed_and_new_input_is_named_and_just_that_is_predicted(
    capfd: pytest.CaptureFixture[str], small_job: Job
) -> None:
    source, output = small_job.source, small_job.output
    run_job(capfd, small_job)
    kept = parts_of(output)
    del kept["b.parquet"]
    write_rows(source / "b.parquet", 150)
    for name in ("e", "f"):
        write_rows(source / f"{name}.parquet", 50)
    outcome = run(capfd, "verify", output)
    assert outcome.code == 1
    assert [line for line in outcome.out.splitlines() if line.startswith("fault ")] == [
        f"fault {source}/b.parquet has changed since it was predicted.",
        f"fault {source}/e.parquet has no part: the file is new, or could not be read.",
        f"fault {source}/f.parquet has no part: the file is new, or could not be read.",
    ]
    result = run_job(capfd, small_job)
    assert result["parts_written"] == 3
    check_whole(capfd, source, output, result=result, kept=kept)


def test_the_part_of_a_removed_input_is_kept_and_its_absence_told(
    capfd: pytest.CaptureFixture[str], small_job: Job, tmp_path: Path
) -> None:
    output = small_job.output
    run_job(capfd, small_job)
    before = parts_of(output)
    (small_job.source / "b.parquet").rename(tmp_path / "b.parquet")
    gone = run(capfd, "verify", output)
    result = run_job(capfd, small_job)
    assert (result["parts_written"], result["parts_reused"]) == (0, 3)
    for outcome in (gone, run(capfd, "verify", output)):
        assert outcome.code == 0, outcome.out
        assert "1 input files are gone" in outcome.out
    assert parts_of(output) == before
    (tmp_path / "b.parquet").rename(small_job.source / "b.parquet")
    result = run_job(capfd, small_job)
    check_whole(capfd, small_job.source, output, result=result, kept=before)


def die_of(units: Sequence[Unit], poison: str) -> None:
    if any(unit.file.relative == poison for unit in units):
        os.kill(os.getpid(), signal.SIGKILL)


class Fragile:
    """Work that dies, as a process does that takes too much memory, of one file."""

    progress = None

    def __init__(self, predictor: object, *, poison: str) -> None:
        self.poison = poison

    def __call__(self, units: Sequence[Unit]) -> list[str]:
        die_of(units, self.poison)
        return [unit.file.relative for unit in units]


def test_a_file_on_which_workers_die_is_given_up_and_the_others_are_done(
    monkeypatch: pytest.MonkeyPatch, small_lake: Path, model: Path
) -> None:
    monkeypatch.setattr(actor_pool, "_MAX_DEATHS", 2)  # each costs seconds
    monkeypatch.setattr(actor_pool, "_DEATHS_OF_BUNDLE", 1)
    a, b, c, d = cut_into_units(find_files([str(small_lake)]), SMALL_UNIT)
    with ray_session(Resources(), lambda event: None) as capacity:
        news = list(
            map_bundles(
                partial(Fragile, poison="b.parquet"),
                [[a, b, c], [d]],
                model=model,
                workers=WorkerRange(1, 1),
                capacity=capacity,
            )
        )
    done = [result for item in news if isinstance(item, Done) for result in item.result]
    given_up = [item for item in news if isinstance(item, GivenUp)]
    assert sorted(done) == ["a.parquet", "c.parquet", "d.parquet"]
    assert [item.unit for item in given_up] == [b]
    assert f"2 workers died on {b.file.path}" in given_up[0].message


class FragilePrediction(_PredictWork):
    """The work of `batch-predict`, with the same weakness."""

    def __call__(self, units: Sequence[Unit]) -> Any:
        die_of(units, "b.parquet")
        return super().__call__(units)


def test_a_command_that_gave_a_file_up_says_so_and_mends_it_the_next_time(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, small_job: Job
) -> None:
    output = small_job.output
    with monkeypatch.context() as patched:
        patched.setattr(actor_pool, "_MAX_DEATHS", 2)
        patched.setattr(actor_pool, "_DEATHS_OF_BUNDLE", 1)
        patched.setattr(batch_predict, "_PredictWork", FragilePrediction)
        outcome = run(capfd, *small_job.arguments)
    assert outcome.code == 1
    assert f"2 workers died on {small_job.source}/b.parquet" in outcome.err
    before = parts_of(output)
    assert sorted(before) == ["a.parquet", "c.parquet", "d.parquet"]
    assert not (output / "_SUCCESS").exists()
    verified = run(capfd, "verify", output)
    assert verified.code == 1
    assert f"2 workers died on {small_job.source}/b.parquet" in verified.out
    result = run_job(capfd, small_job)
    check_whole(capfd, small_job.source, output, result=result, kept=before)
