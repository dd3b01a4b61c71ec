import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import Any

import pyarrow.parquet as pq
import pytest

from distlstm.demo import corpus as stdlib_corpus
from distlstm.demo.corpus import (
    MODULES_OF_FAMILY,
    DemoCorpus,
    Passage,
    build_stdlib_corpus,
    labelled_passages,
    prose,
    source_passages,
    write_corpus,
)
from distlstm.errors import UserError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DemoCorpus:
    return build_stdlib_corpus(tmp_path_factory.mktemp("demo") / "corpus")


def read(path: Path, column: str) -> list[Any]:
    """The values of one column of a Parquet file."""
    values: list[Any] = pq.read_table(path, columns=[column])[column].to_pylist()
    return values


def read_labelled(corpus: DemoCorpus, column: str) -> list[str]:
    return read(corpus.train, column) + read(corpus.test, column)


def letters(text: str) -> str:
    return "".join(filter(str.isalpha, text.lower()))


def files_below(directory: Path) -> dict[str, bytes]:
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def passage(text: str, family: str | None, kind: str = "docstring") -> Passage:
    return Passage(text=text, module="made_up", kind=kind, family=family)


def test_the_labelled_rows_are_many_and_balanced_over_eight_families(corpus: DemoCorpus) -> None:
    counts = Counter(read_labelled(corpus, "label"))
    assert counts.total() == corpus.num_train + corpus.num_test >= 5_000
    assert corpus.families == tuple(sorted(counts)) == tuple(sorted(MODULES_OF_FAMILY))
    assert min(counts.values()) >= 200
    assert max(counts.values()) < 0.3 * counts.total()
    assert 0.13 < corpus.num_test / counts.total() < 0.17


def test_no_text_is_labelled_twice_whatever_its_case_and_punctuation(corpus: DemoCorpus) -> None:
    texts = [letters(text) for text in read_labelled(corpus, "text")]
    assert len(set(texts)) == len(texts)


def test_rows_are_single_lines_of_a_few_words(corpus: DemoCorpus) -> None:
    for text in read_labelled(corpus, "text"):
        assert "\n" not in text
        assert 4 <= len(text.split()) <= 60


def test_the_unlabelled_files_hold_more_rows_numbered_from_zero(corpus: DemoCorpus) -> None:
    paths = sorted(corpus.unlabelled.iterdir())
    ids = [row_id for path in paths for row_id in read(path, "id")]
    modules = [module for path in paths for module in read(path, "module")]
    assert ids == list(range(corpus.num_unlabelled))
    assert corpus.num_unlabelled > corpus.num_train + corpus.num_test
    assert modules == sorted(modules)
    assert all(pq.ParquetFile(path).num_row_groups > 1 for path in paths)


def test_no_test_text_is_among_the_unlabelled_ones(corpus: DemoCorpus) -> None:
    unlabelled = {
        letters(text) for path in corpus.unlabelled.iterdir() for text in read(path, "text")
    }
    assert unlabelled.isdisjoint(map(letters, read(corpus.test, "text")))
    assert unlabelled >= set(map(letters, read(corpus.train, "text")))


def test_another_process_writes_the_same_bytes_and_imports_no_module_it_reads(
    corpus: DemoCorpus, tmp_path: Path
) -> None:
    program = f"""
        import sys
        from pathlib import Path
        from distlstm.demo.corpus import build_stdlib_corpus
        build_stdlib_corpus(Path({str(tmp_path)!r}))
        print(*{{"antigravity", "idlelib", "this", "tkinter", "turtle"}}.intersection(sys.modules))
    """
    settings = {"PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    root = Path(stdlib_corpus.__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-OO", "-X", "utf8=0", "-c", dedent(program)],
        env=os.environ | settings,
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == []
    assert files_below(tmp_path) == files_below(corpus.train.parent)


def test_no_module_is_in_two_families() -> None:
    modules = " ".join(MODULES_OF_FAMILY.values()).split()
    assert sorted(set(modules)) == sorted(modules)


@pytest.fixture
def small_stdlib(tmp_path: Path) -> Path:
    """Two modules, a package, topics and a test; the rest of the library is missing."""
    sources = {
        "socket.py": '''
            """Connect a socket to the server."""
            # A comment wraps at the end
            # of its first line.
            text = """
            # This is the inside of a string.
            """
            class Server:
                if True:
                    def serve(self):
                        """Serve until the server is closed."""
        ''',
        "tarfile.py": '"""Read an archive of the tape kind."""\nraise SystemExit',
        "json/decoder.py": '"""Decode a text in the notation of objects."""',
        "json/template.py": "This is not Python, it is a template.",
        "pydoc_data/topics.py": """
            topics = {"if": "It selects one of the suites.", "debugger": "It stops at the line."}
        """,
        "test/test_socket.py": '''
            """A docstring of the tests is not read."""
            # The port may be in use.
        ''',
        "site-packages/stranger.py": '"""This is not a part of the library."""',
        "sitecustomize.py": '"""This is not a part of the library either."""',
    }
    for name, source in sources.items():
        path = tmp_path / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source).lstrip(), encoding="utf-8")
    return tmp_path / "lib"


def test_what_is_there_of_a_library_is_read(small_stdlib: Path) -> None:
    found = {(p.module, p.kind, p.family, p.text) for p in source_passages(small_stdlib)}
    assert found == {
        ("socket", "docstring", "networking", "Connect a socket to the server."),
        ("socket", "docstring", "networking", "Serve until the server is closed."),
        ("socket", "comment", "networking", "A comment wraps at the end of its first line."),
        ("tarfile", "docstring", "files", "Read an archive of the tape kind."),
        ("json.decoder", "docstring", "text", "Decode a text in the notation of objects."),
        ("pydoc_data.topics", "topic", "language", "It selects one of the suites."),
        ("pydoc_data.topics", "topic", "testing", "It stops at the line."),
        ("test.test_socket", "comment", None, "The port may be in use."),
    }


def test_a_small_library_gives_a_small_corpus(small_stdlib: Path, tmp_path: Path) -> None:
    corpus = write_corpus(list(source_passages(small_stdlib)), directory=tmp_path / "corpus")
    assert corpus.num_train + corpus.num_test == 6
    assert corpus.num_unlabelled == 8
    assert corpus.families == ("files", "language", "networking", "testing", "text")
    assert pq.read_schema(corpus.train).names == ["text", "label", "module", "kind"]
    assert pq.read_schema(corpus.test) == pq.read_schema(corpus.train)


def test_a_python_without_sources_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / name))
    with pytest.raises(UserError, match="No standard-library source found"):
        build_stdlib_corpus(tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_a_text_of_two_families_is_dropped_and_one_of_the_same_family_kept_once() -> None:
    passages = [
        passage("Close the file.", "files"),
        passage("Open the file.", "files"),
        passage("close the file!", "networking"),
        passage("Open the file", "files"),
        passage("A comment on the file.", "files", kind="comment"),
        passage("Of no family at all.", None),
    ]
    assert [kept.text for kept in labelled_passages(passages)] == ["Open the file."]


def test_an_interrupted_write_leaves_the_old_file_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus([passage("Open the file.", "files")], directory=tmp_path)
    before = files_below(tmp_path)

    def fail_halfway(_table: object, path: Path, **_options: object) -> None:
        path.write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", fail_halfway)
    with pytest.raises(OSError, match="disk full"):
        write_corpus([passage("Close the socket.", "networking")], directory=tmp_path)
    assert files_below(tmp_path) == before


LONG = "The sentence has seven words in it. " * 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wrapped lines\nare joined to one.", ["Wrapped lines are joined to one."]),
        ("Too short.\n \nThis is long enough.", ["This is long enough."]),
        ("This doubles a number:\n>>> twice(1)\n2", ["This doubles a number:"]),
        ("recv(size[, flags]) -> data\nRead it from the socket.", ["Read it from the socket."]),
        ("The title of it\n=====\nThe text of it.", ["The title of it", "The text of it."]),
        ("- one of the two\n- another\n  of the two", ["one of the two", "another of the two"]),
        ("path: where it is\nmode: how it is", ["path: where it is", "mode: how it is"]),
        ("data\n    what is written to it", ["what is written to it"]),
        (LONG, ["The sentence has seven words in it."] * 10),
        ("for x in range(10): y[x] = f(x) + g(x, 'a')", []),
        ("name    a column of it\nvalue   and another of it", []),
        ("stmt ::= a rule of the grammar", []),
        ("of " * 61, []),
        ("", []),
    ],
)
def test_prose_keeps_paragraphs_of_english(text: str, expected: list[str]) -> None:
    assert list(prose(text)) == expected
