"""Tests of distlstm.data.vectors_file."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from distlstm.config import TextConfig
from distlstm.data.vectors_file import VectorsFile
from distlstm.errors import UserError
from distlstm.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(pa.array(["<pad>", "<unk>", "goal", "bank", "rain"]))
CONTENT = b"3 2\n<unk> 9 9\n<pad> 9 9\nBank 3 4\ngoal 1 2\n"


@pytest.mark.parametrize("name", ["v.txt", "v.vec.gz"])
def test_vectors_come_by_token_id_and_the_special_tokens_have_none(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(CONTENT) if name.endswith(".gz") else CONTENT)
    for source in (str(path), path.as_uri()):
        file = VectorsFile.find(source)
        assert file.dimension() == 2
        nothing = [np.nan] * 2
        expected = [nothing, nothing, [1, 2], [3, 4], nothing]
        np.testing.assert_array_equal(file.match(VOCABULARY, TextConfig()), expected)
        exact = [nothing, nothing, [1, 2], nothing, nothing]
        np.testing.assert_array_equal(file.match(VOCABULARY, TextConfig(lowercase=False)), exact)


def test_a_compressed_file_that_ends_too_soon_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v.txt.gz"
    lines = [f"w{i} {i % 7} {i % 11}\n".encode() for i in range(200_000)]
    path.write_bytes(gzip.compress(b"".join(lines))[:-1000])
    with pytest.raises(UserError, match=r"v\.txt\.gz cannot be read after line [1-9]"):
        VectorsFile.find(str(path)).match(VOCABULARY, TextConfig())


def test_what_is_no_compressed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v.txt.gz"
    path.write_bytes(CONTENT)
    with pytest.raises(UserError, match=r"v\.txt\.gz cannot be read"):
        VectorsFile.find(str(path)).dimension()


@pytest.mark.parametrize("name", ["gone.txt", "."])
def test_what_is_no_file_is_a_user_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="is not a file"):
        VectorsFile.find(str(tmp_path / name))


def test_a_changed_file_compares_unequal(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_bytes(CONTENT)
    before = VectorsFile.find(str(path))
    assert VectorsFile.find(str(path)) == before
    path.write_bytes(CONTENT + b"rain 5 6\n")
    assert VectorsFile.find(str(path)) != before
