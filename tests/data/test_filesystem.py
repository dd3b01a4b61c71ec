"""Data sets of the Hugging Face Hub, `hf://datasets/...`, on a server that answers like it."""

import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from distlstm.data import filesystem
from distlstm.data.filesystem import open_filesystem
from distlstm.errors import UserError
from tests.data.hub_server import hub_of

READ = """
import json, sys
from distlstm.data.files import find_files
from distlstm.data.reading import read_batches
from distlstm.errors import UserError
def read(source):
    try:
        files = find_files([source])
    except UserError as error:
        return str(error)
    return {f.relative: [r for b in read_batches(f) for r in b.to_pylist()] for f in files}
print(json.dumps([read(source) for source in sys.argv[1:]]))
"""
DATA = "hf://datasets/me/reviews"


def test_files_of_the_hub_are_found_and_read(tmp_path: Path) -> None:
    (tmp_path / "data/lang=de").mkdir(parents=True)
    table = pa.table({"id": [1, 2], "text": ["a", "天气"]})
    pq.write_table(table, tmp_path / "data/lang=de/a.parquet")
    (tmp_path / "data/b.csv").write_text("id,text\n3,c\n")
    write_deltalake(tmp_path / "table", table)
    sources = [
        *(f"{DATA}/data", f"{DATA}/data/b.csv", f"{DATA}/data/*/*.parquet"),
        *("hf://datasets/me/none", DATA, f"{DATA}/table/*.parquet"),
    ]
    with hub_of(tmp_path) as address:
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
        ended = subprocess.run(  # in a process of its own, as the client reads it at its import
            [sys.executable, "-c", READ, *sources],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    everything, one, matching, none, above, inside = json.loads(ended.stdout)
    rows = table.to_pylist()
    assert everything == {
        "lang=de/a.parquet": rows,
        "b.csv": [{"id": "3", "text": "c"}],
    }
    assert one == {"b.csv": [{"id": "3", "text": "c"}]}
    assert matching == {"lang=de/a.parquet": rows}
    assert "does not exist" in none
    assert above.startswith(f"Cannot read {DATA}/table, a Delta table: ")
    assert "is a Delta table, and not all of its files are current" in inside


def test_without_the_client_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert util.find_spec("huggingface_hub") is not None
    monkeypatch.setattr(filesystem, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'distlstm\[hf\]'"):
        open_filesystem(DATA)
