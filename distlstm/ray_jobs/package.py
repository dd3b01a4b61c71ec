"""The files that a job needs and that are sent to the cluster: chosen one by one, in a directory.

Ray sends directories: the working directory of the job, and packages, which come before those that
the cluster has (`py_modules`). It keeps a directory by a hash of its content, and sends it if the
cluster lacks it. This package is sent as its directory, not as a wheel: Ray would install a wheel
with everything that it requires once more, torch and Ray included.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distlstm
from distlstm.config import to_toml
from distlstm.ray_jobs.plan import CONFIG_FILE, START_FILE, JobPlan

_PACKAGE = Path(distlstm.__file__).parent
_SUFFIXES = {".py", ".typed", ".html", ".css", ".js", ".sh"}
"""Suffixes of the package's files. Nothing else that lies there is sent."""
_SECONDS_TO_STOP = 120
_VARIABLES = {
    # Ctrl-C is how our commands are asked to keep what is finished, and to end.
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": str(_SECONDS_TO_STOP),
}


@dataclass(frozen=True)
class SentFile:
    """A file that is sent to the cluster."""

    name: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """The directories that are sent."""

    work: Path
    """The working directory of the job."""
    package: Path

    def files(self) -> list[SentFile]:
        """All files in them, by name."""
        found = {
            path.relative_to(directory).as_posix(): path.stat().st_size
            for directory in (self.work, self.package.parent)
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }
        return [SentFile(name, size) for name, size in found.items()]

    def runtime_env(self) -> dict[str, Any]:
        """What Ray's jobs API takes, which also tells how the job is stopped."""
        return {
            "working_dir": str(self.work),
            "py_modules": [str(self.package)],
            "env_vars": dict(_VARIABLES),
        }


@contextmanager
def packed(plan: JobPlan) -> Iterator[Parcel]:
    """Copy the files of a job to a temporary directory, for the time of a block."""
    with tempfile.TemporaryDirectory(prefix="distlstm-job-") as directory:
        parcel = Parcel(work=Path(directory) / "work", package=Path(directory) / "modules/distlstm")
        parcel.work.mkdir()
        shutil.copyfile(Path(__file__).with_name(START_FILE), parcel.work / START_FILE)
        if plan.experiment is not None:
            (parcel.work / CONFIG_FILE).write_text(to_toml(plan.experiment), encoding="utf-8")
        for file in _package_files():
            copy = parcel.package / file.relative_to(_PACKAGE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        yield parcel


def _package_files() -> list[Path]:
    return sorted(
        path
        for path in _PACKAGE.rglob("*")
        if path.suffix in _SUFFIXES
        and path.is_file()
        and not any(
            part.startswith((".", "__pycache__")) for part in path.relative_to(_PACKAGE).parts
        )
    )
