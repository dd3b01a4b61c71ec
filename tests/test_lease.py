"""Sole use of a directory in an object store."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest

from distlstm.errors import RunError, UserError
from distlstm.storage import Lease, ObjectStorage, storage_at
from tests.object_store import SCHEMES, ObjectStore, running_stores, store_of

FAST = {"renewal": 0.2, "duration": 1.5}
HOLDER = """
import sys, time
from distlstm.storage import Lease, storage_at
with Lease(storage_at(sys.argv[1]), renewal=0.2, duration=1.5) as lease:
    print("taken", flush=True)
    sys.stdin.readline()
    try:
        lease.check()
    except Exception as error:
        print(type(error).__name__, flush=True)
"""


@pytest.fixture(scope="module")
def stores() -> Iterator[dict[str, ObjectStore]]:
    with running_stores() as stores:
        yield stores


@pytest.fixture(params=SCHEMES)
def directory(request: pytest.FixtureRequest, stores: dict[str, ObjectStore]) -> ObjectStorage:
    store = store_of(stores, request.param)
    storage = storage_at(f"{store.scheme}://bucket/{uuid.uuid4().hex}")
    assert isinstance(storage, ObjectStorage)
    return storage


@pytest.fixture
def holder(directory: ObjectStorage) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease until it gets a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, directory.location],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_command_is_refused_while_the_first_is_at_work(
    directory: ObjectStorage, holder: subprocess.Popen[str]
) -> None:
    notes: list[str] = []
    with pytest.raises(UserError, match=f"Another command is at work on {directory.location}"):
        Lease(directory, **FAST, on_wait=notes.append).acquire()
    assert len(notes) == 1
    holder.communicate("end\n")
    assert not directory.exists("_lock")
    with Lease(directory, **FAST) as lease:
        lease.check()
    assert not directory.exists("_lock")


def test_the_lease_of_a_process_that_was_killed_here_is_taken_at_once(
    directory: ObjectStorage, holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    holder.wait()
    began = time.monotonic()
    with Lease(directory, renewal=4, duration=20) as lease:
        lease.check()
    assert time.monotonic() - began < 3


def test_the_lease_of_a_machine_that_died_is_taken_after_its_duration(
    directory: ObjectStorage,
) -> None:
    directory.write("_lock", '{"boot": "another", "namespace": "x", "pid": 1, "started": 1}')
    began = time.monotonic()
    with Lease(directory, **FAST) as lease:
        lease.check()
    assert 1.5 <= time.monotonic() - began < 5


def test_a_holder_that_stood_still_learns_that_it_lost_the_lease(
    directory: ObjectStorage, holder: subprocess.Popen[str]
) -> None:
    os.kill(holder.pid, signal.SIGSTOP)
    with Lease(directory, **FAST) as lease:
        os.kill(holder.pid, signal.SIGCONT)
        printed, _ = holder.communicate("check\n")
        assert printed == "RunError\n"
        time.sleep(0.5)
        lease.check()
    assert not directory.exists("_lock")


def test_a_holder_that_stood_still_keeps_a_lease_that_nobody_took(
    directory: ObjectStorage, holder: subprocess.Popen[str]
) -> None:
    os.kill(holder.pid, signal.SIGSTOP)
    time.sleep(2)
    os.kill(holder.pid, signal.SIGCONT)
    printed, _ = holder.communicate("check\n")
    assert printed == ""


def test_a_lease_that_is_gone_is_lost(directory: ObjectStorage) -> None:
    with Lease(directory, renewal=60, duration=0.1) as lease:
        directory.delete(["_lock"])
        time.sleep(0.1)
        with pytest.raises(RunError, match="lost its lock"):
            lease.check()
