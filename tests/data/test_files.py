"""Tests of distlstm.data.files."""

import glob
import os
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from distlstm.data import files
from distlstm.data.files import SourceFile, find_files, would_find
from distlstm.data.formats import compression_of, format_by_name
from distlstm.data.reading import read_batches
from distlstm.errors import UserError


def make(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("text\nx\n")
    return directory


def relatives(*sources: object) -> list[str]:
    return [file.relative for file in find_files([str(source) for source in sources])]


def is_readable(file: SourceFile) -> bool:
    return [row for b in read_batches(file) for row in b.to_pylist()] == [{"text": "x"}]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.parquet", ("parquet", None)),
        ("/x/A.PQ", ("parquet", None)),
        ("a.CSV.GZ", ("csv", "gzip")),
        ("a.b.tsv.zst", ("tsv", "zstd")),
        ("a.json", ("jsonl", None)),
        ("a.ndjson.gz", ("jsonl", "gzip")),
        ("a.txt", (None, None)),
        ("a.gz", (None, "gzip")),
        ("a.csv.bz2", ("csv", "bz2")),
        ("a.csv.rar", (None, None)),
        ("csv", (None, None)),
        ("a.csv/b", (None, None)),
    ],
)
def test_the_format_is_told_by_the_suffix(
    path: str, expected: tuple[str | None, str | None]
) -> None:
    assert (format_by_name(path), compression_of(path)) == expected


def test_files_come_sorted_by_path_however_they_are_named(tmp_path: Path) -> None:
    make(tmp_path, "b.csv", "a/z.csv", "c.csv")
    assert relatives(tmp_path / "c.csv", tmp_path) == ["a/z.csv", "b.csv", "c.csv"]
    assert relatives(tmp_path / "c.csv", tmp_path / "b.csv") == ["b.csv", "c.csv"]


def test_what_a_file_is_stays_with_it(tmp_path: Path) -> None:
    make(tmp_path, "a.csv")
    os.utime(tmp_path / "a.csv", ns=(5, 1_000_000_007))
    (file,) = find_files([str(tmp_path)])
    assert (file.path, file.size, file.modified) == (str(tmp_path / "a.csv"), 7, 1_000_000_007)
    assert file == find_files([str(tmp_path)])[0]
    (tmp_path / "a.csv").write_text("text\ny\n")
    assert file != find_files([str(tmp_path)])[0]


def test_relative_and_home_paths_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "d/a.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in ("d", "d/a.csv", "./d/*.csv", "~/d", "d/"):
        (file,) = find_files([source])
        assert file.path == str(tmp_path / "d/a.csv")
        assert file.relative == "a.csv"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.csv", ["a.csv", "b.csv"]),
        ("?.csv", ["a.csv", "b.csv"]),
        ("[!b].csv", ["a.csv"]),
        ("[a-b].csv", ["a.csv", "b.csv"]),
        ("**/*.csv", ["a.csv", "b.csv", "x/c.csv", "x/y/c.csv", "x1/d.csv"]),
        ("**/c.csv", ["x/c.csv", "x/y/c.csv"]),
        ("x/**/c.csv", ["c.csv", "y/c.csv"]),
        ("x*/*.csv", ["x/c.csv", "x1/d.csv"]),
        ("*/*/c.csv", ["x/y/c.csv"]),
        ("x[0-9]/d.csv", ["x1/d.csv"]),
        ("*", ["a.csv", "b.csv", "x/c.csv", "x/y/c.csv", "x1/d.csv"]),
        ("x/**", ["c.csv", "y/c.csv"]),
    ],
)
def test_a_glob_names_what_a_shell_would(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    make(tmp_path, "a.csv", "b.csv", "x/c.csv", "x/y/c.csv", "x1/d.csv", "n.txt", "_h/e.csv")
    assert relatives(tmp_path / pattern) == expected


@pytest.mark.parametrize("name", ["a[1].csv", "a+b(1).csv", "a%20b#.csv", "你 好.csv", "a]b.csv"])
def test_a_name_that_is_not_plain_is_found_as_itself_and_by_glob(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    assert relatives(tmp_path / name) == relatives(tmp_path / "*.csv") == [name]
    assert relatives(glob.escape(str(tmp_path)) + "/**/" + name[0] + "*") == [name]
    assert is_readable(find_files([str(tmp_path)])[0])


@pytest.mark.parametrize("pattern", ["a[[]1].csv", "a[[]*.csv", "[[]x/*.csv"])
def test_a_glob_may_escape_a_bracket(tmp_path: Path, pattern: str) -> None:
    make(tmp_path, "a[1].csv", "[x/b.csv")
    assert len(relatives(tmp_path / pattern)) == 1


@pytest.mark.parametrize("pattern", ["[z-a].csv", "[\\].csv", "[a.csv", "**/[9-0]/*.csv"])
def test_a_glob_that_can_match_nothing_is_a_user_error(tmp_path: Path, pattern: str) -> None:
    make(tmp_path, "a.csv")
    with pytest.raises(UserError):
        find_files([str(tmp_path / pattern)])


@pytest.mark.parametrize(
    ("directory", "source"),
    [
        ("d", "d/"),
        ("d", "d/?.csv"),
        ("a b", "a%20b"),
        ("a b", "a%20b/a.csv"),
        ("你", "%E4%BD%A0/*.csv"),
    ],
)
def test_a_file_uri_names_what_its_path_would(tmp_path: Path, directory: str, source: str) -> None:
    make(tmp_path, f"{directory}/a.csv")
    (file,) = find_files([f"file://{tmp_path}/{source}"])
    assert file == find_files([str(tmp_path / directory)])[0]


@pytest.mark.parametrize(
    "source",
    [
        "s3://key:secret@bucket/in?region=x",
        "s3://key:secret@bucket/in/?region=x",
        "s3://key:secret@bucket/in/*/*.csv?region=x",
        "s3://key:secret@bucket/in/k=1/a%20b.csv?region=x",
    ],
)
def test_what_lies_below_a_uri_has_a_uri_that_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())

    def open_store(uri: str) -> tuple[pafs.FileSystem, str]:
        """As pyarrow does for S3: the path begins with the bucket and has no final slash."""
        return store, unquote(uri.partition("?")[0]).partition("@")[2].rstrip("/")

    monkeypatch.setattr(files, "open_filesystem", open_store)
    make(tmp_path, "bucket/in/k=1/a b.csv")
    (file,) = find_files([source])
    assert file.path == "s3://key:secret@bucket/in/k=1/a%20b.csv?region=x"
    assert open_store(file.path)[1] == "bucket/in/k=1/a b.csv"


@pytest.mark.parametrize("again", ["{0}/d/a.csv", "{0}/x/../d/a.csv", "file://{0}/d/a.csv"])
def test_a_file_named_twice_is_read_once(tmp_path: Path, again: str) -> None:
    make(tmp_path, "d/a.csv", "x/b.csv")
    assert len(find_files([str(tmp_path / "d"), again.format(tmp_path)])) == 1


def test_hidden_names_are_skipped_below_a_source_but_not_above_it(tmp_path: Path) -> None:
    hidden = make(tmp_path / "_work" / ".cache", "a.csv", "_b.csv", ".c.csv", "_t/d.csv")
    assert relatives(hidden) == relatives(f"{hidden}/*.csv") == ["a.csv"]
    assert relatives(hidden / "_b.csv") == ["_b.csv"]


@pytest.mark.parametrize(
    ("relative", "expected"),
    [
        ("a.csv", {}),
        ("year=2020/lang=zh/a.csv", {"year": "2020", "lang": "zh"}),
        ("x/k=a=b/a.csv", {"k": "a=b"}),
        ("k=/a.csv", {"k": ""}),
        ("=v/a.csv", {}),
        ("_k=1/a.csv", {"_k": "1"}),
        ("x/k=1.csv", {}),
    ],
)
def test_directories_named_column_equals_value_are_partitions(
    tmp_path: Path, relative: str, expected: dict[str, str]
) -> None:
    make(tmp_path, relative)
    (file,) = find_files([str(tmp_path)])
    assert file.relative == relative
    assert file.partitions == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing", "does not exist"),
        ("missing/*.csv", "No data files"),
        ("empty", "No data files"),
        ("*.parquet", "No data files"),
        ("n.txt", "Cannot tell the format"),
        ("a.csv/b.csv", "does not exist"),
    ],
)
def test_what_cannot_be_found_is_named_with_what_could(
    tmp_path: Path, source: str, message: str
) -> None:
    make(tmp_path, "a.csv", "n.txt", "empty/_SUCCESS")
    with pytest.raises(UserError, match=message) as raised:
        find_files([str(tmp_path / "a.csv"), str(tmp_path / source)])
    assert str(tmp_path / source.partition("*")[0]) in str(raised.value)


@pytest.mark.parametrize("uri", ["nosuch://bucket/key", "file://relative/a.csv", "://x"])
def test_a_uri_of_no_filesystem_is_a_user_error(uri: str) -> None:
    with pytest.raises(UserError):
        find_files([uri])


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A directory with links to a file, to a directory elsewhere, to itself, and to nothing."""
    root, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    for name in ("in/d/a.csv", "elsewhere/b.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text\nx\n")
    (root / "link.csv").symlink_to(root / "d/a.csv")
    (root / "more").symlink_to(elsewhere)
    (root / "d/loop").symlink_to(root)
    (root / "broken.csv").symlink_to(tmp_path / "nowhere")
    return root


def test_links_are_followed_each_file_is_found_once_and_a_loop_ends(linked: Path) -> None:
    found = [file.relative for file in find_files([str(linked)])]
    assert found == ["d/a.csv", "more/b.csv"]


@pytest.mark.parametrize("pattern", ["m*/*.csv", "more/*", "m*", "**/b.csv"])
def test_a_glob_goes_through_links(linked: Path, pattern: str) -> None:
    assert [file.relative for file in find_files([f"{linked}/{pattern}"])][-1].endswith("b.csv")


def test_a_glob_that_matches_directories_reads_them(tmp_path: Path) -> None:
    for name in ("d1.parquet/part-0.parquet", "d2.parquet/x/part-0.parquet", "d3/part-0.parquet"):
        (tmp_path / name).parent.mkdir(parents=True)
        pq.write_table(pa.table({"text": ["a"]}), tmp_path / name)
    found = [file.relative for file in find_files([f"{tmp_path}/*.parquet"])]
    assert found == ["d1.parquet/part-0.parquet", "d2.parquet/x/part-0.parquet"]
    assert len(find_files([f"{tmp_path}/*"])) == 3


@pytest.mark.parametrize(
    ("source", "path", "expected"),
    [
        ("in", "in/out", True),
        ("in", "in", True),
        ("in", "in/_out", False),
        ("in", "out", False),
        ("in/a.csv", "in", False),
        ("in/*.parquet", "in/out", False),
        ("in/*", "in/out", True),
        ("in/**/*.parquet", "in/deep/out", True),
        ("in/**/*.csv", "in/out", False),
        ("link", "in/out", True),
    ],
)
def test_an_output_that_a_source_would_find_is_known_before_it_is_there(
    tmp_path: Path, source: str, path: str, expected: bool
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("text\n")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert would_find(str(tmp_path / source), str(tmp_path / path)) == expected


def test_what_is_passed_over_is_counted_and_named(tmp_path: Path) -> None:
    make(tmp_path, "a.csv", "notes.txt", "b/c.docx", "b/_d.csv", "_SUCCESS", ".crc", "e.rar", "f")
    notes: list[str] = []
    assert [f.relative for f in find_files([str(tmp_path)], on_note=notes.append)] == ["a.csv"]
    assert notes == [
        f"Passed over 5 files in {tmp_path}, hidden or of an unknown format: _d.csv, c.docx, "
        "e.rar, and others."
    ]


def test_parquet_without_a_suffix_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "000000_0")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "broken.gz").write_bytes(b"no gzip")
    (file,) = find_files([str(tmp_path)])
    assert (file.relative, file.format, is_readable(file)) == ("000000_0", "parquet", True)
    assert find_files([str(tmp_path / "000000_0")]) == [file]
    assert [f.format for f in find_files([str(tmp_path / "0*")])] == ["parquet"]


@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_standard_input_is_refused_with_the_reason(source: str) -> None:
    with pytest.raises(UserError, match="write it to a file first"):
        find_files([source])


def test_a_pipe_is_refused_with_the_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe is neither a file nor a directory"):
        find_files([str(tmp_path / "pipe")])


def test_a_file_of_unknown_format_names_the_option(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    with pytest.raises(UserError, match="--input-format"):
        find_files([str(tmp_path / "a.txt")])
