"""CSV and TSV as other programs write them, and what the reader options say about them."""

import codecs
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlstm.data.csv_scanner import Scanner
from distlstm.data.files import find_files
from distlstm.data.reading import read_batches, read_schema
from distlstm.errors import UserError
from distlstm.reader_options import ReaderOptions

BY_SPARK = r"""id,text
0,plain
1,"say \"hi\""
2,C:\new
3,"a\\b, c"
4,"ends, \\"
5,"q\\\"x"
6,"line
break"
7,"\""
8,\
9,""
10,
11,"a \"b\", \n c"
12,\\
"""
MEANT = [
    *("plain", 'say "hi"', r"C:\new", r"a\b, c", "ends, \\", r"q\"x", "line\nbreak", '"', "\\"),
    *("", None, r'a "b", \n c', r"\\"),
]


def written(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


def read(path: Path, **options: Any) -> list[dict[str, Any]]:
    return [
        row
        for file in find_files([str(path)], ReaderOptions(**options))
        for batch in read_batches(file, one_type=True)
        for row in batch.to_pylist()
    ]


def test_what_spark_writes_by_default_is_read_with_its_escape(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", BY_SPARK)
    assert [row["text"] for row in read(path, escape="\\")] == MEANT


def test_without_the_option_a_backslash_escape_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", BY_SPARK)
    with pytest.raises(UserError, match=r"line 3: .*Spark and MySQL do, give --escape '\\'"):
        read(path)


def test_two_backslashes_that_may_be_one_are_an_error_that_names_both_ways(tmp_path: Path) -> None:
    content = 'id,text\n1,x\n2,"C:\\\\dir, old"\n'
    path = written(tmp_path / "a.csv", content)
    with pytest.raises(UserError, match=r"line 3: .*give --escape '\\'; if not, --escape ''"):
        read(path)
    assert read(path, escape="\\")[1]["text"] == "C:\\dir, old"
    assert read(path, escape="")[1]["text"] == "C:\\\\dir, old"


@pytest.mark.parametrize("other", ['"say ""hi"""', '"C:\\dir, new"'])
def test_two_backslashes_are_two_where_another_value_shows_it(tmp_path: Path, other: str) -> None:
    path = written(tmp_path / "a.csv", f'id,text\n1,{other}\n2,"C:\\\\dir, old"\n')
    assert read(path)[1]["text"] == "C:\\\\dir, old"


def test_the_text_format_of_mysql_and_postgresql_is_read_without_quoting(tmp_path: Path) -> None:
    content = '1\ta\\tb\\nc\t"\n2\t\\N\tC:\\\\dir\n3\tover two\\\nlines\t\\"\n4\ta\\\ttab\t\n'
    path = written(tmp_path / "dump.tsv", content)
    rows = read(path, quote="", escape="\\", header=["id", "text", "more"])
    assert [(row["text"], row["more"]) for row in rows] == [
        ("a\tb\nc", '"'),
        (None, "C:\\dir"),
        ("over two\nlines", '"'),
        ("a\ttab", None),
    ]


def test_a_file_without_a_header_row_gets_its_names_from_the_user(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "Who ?,HUM\nWhere ?,LOC\n")
    with pytest.raises(UserError, match="If its first row is data, name the columns with --header"):
        list(read_batches(find_files([str(path)])[0], columns=["text"]))
    assert read(path, header=("text", "label")) == [
        {"text": "Who ?", "label": "HUM"},
        {"text": "Where ?", "label": "LOC"},
    ]
    with pytest.raises(UserError, match="has 2 values, and --header has 3 names: a, b, c"):
        read(path, header=("a", "b", "c"))


@pytest.mark.parametrize("delimiter", ["^", "||", "\x01", "þ"])
def test_a_delimiter_can_be_any_text(tmp_path: Path, delimiter: str) -> None:
    content = f'id{delimiter}text\n1{delimiter}"a{delimiter}b ""c"""\n2{delimiter}d|\n'
    path = written(tmp_path / "a.csv", content)
    assert [row["text"] for row in read(path, delimiter=delimiter)] == [
        f'a{delimiter}b "c"',
        "d|",
    ]


def test_another_quote_can_be_given_or_none(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "id,text\n1,'a, ''b'''\n2,\"c\"\n")
    assert [row["text"] for row in read(path, quote="'")] == ["a, 'b'", '"c"']
    plain = written(tmp_path / "b.csv", 'id,text\n1,"Who\n2,is" it\n')
    assert [row["text"] for row in read(plain, quote="")] == ['"Who', 'is" it']


def test_null_values_are_those_without_quotes(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'id,text\n1,NA\n2,"NA"\n3,\n4,\\N\n')
    assert [row["text"] for row in read(path)] == ["NA", "NA", None, "\\N"]
    assert [row["text"] for row in read(path, null_values=["NA", "\\N"])] == [None, "NA", "", None]
    scanned = written(tmp_path / "b.csv", path.read_text().replace(",", "||"))
    rows = read(scanned, null_values=["NA", "\\N"], delimiter="||")
    assert [row["text"] for row in rows] == [None, "NA", "", None]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("encoding", ["gb18030", "utf-16-le", "utf-16", "utf-8-sig"])
def test_an_encoding_can_be_given(tmp_path: Path, suffix: str, encoding: str) -> None:
    lines = '{"text": "天气很好"}\n' if suffix == "jsonl" else "text\n天气很好\n"
    path = written(tmp_path / f"a.{suffix}", lines, encoding)
    assert read(path, encoding=encoding) == [{"text": "天气很好"}]


def test_bytes_that_the_encoding_does_not_have_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text\n\xff\xff\n")
    with pytest.raises(UserError, match="--encoding"):
        read(path, encoding="gb18030")


def test_a_header_in_another_encoding_names_the_option(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "文本\n天气\n", "gb18030")
    with pytest.raises(UserError, match="--encoding"):
        read(path)


def test_a_format_can_be_given_whatever_the_names(tmp_path: Path) -> None:
    written(tmp_path / "000000_0", "a,Who ?\n")
    assert read(tmp_path, format="csv", header=["id", "text"]) == [{"id": "a", "text": "Who ?"}]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_carriage_return_alone_is_text_where_lines_end_with_line_feeds(
    tmp_path: Path, suffix: str
) -> None:
    content = 'text,n\nover\rtwo,1\n"a\rb",2\n'.replace(",", "\t" if suffix == "tsv" else ",")
    rows = read(written(tmp_path / f"a.{suffix}", content))
    assert [row["text"] for row in rows] == ["over\rtwo", "a\rb"]
    old = written(tmp_path / f"old.{suffix}", content.replace("\r", " ").replace("\n", "\r"))
    assert [row["text"] for row in read(old)] == ["over two", "a b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": ""}, "delimiter is empty"),
        ({"quote": "''"}, "one character"),
        ({"delimiter": ",", "escape": ","}, "different characters"),
        ({"encoding": "klingon"}, "no text encoding 'klingon'"),
        ({"encoding": "rot13"}, "no text encoding 'rot13'"),
        ({"header": "a,b"}, "list of texts"),
        ({"header": ["a", "a"]}, "same name twice"),
        ({"format": "xlsx"}, "none of"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ReaderOptions(**options)


def test_an_option_without_effect_is_refused() -> None:
    ReaderOptions(delimiter=";").check_used(["parquet", "csv"])
    with pytest.raises(UserError, match=r"null values has no effect.*csv and tsv.*are parquet"):
        ReaderOptions(null_values=["NA"]).check_used(["parquet"])


def test_options_survive_being_written_down() -> None:
    options = ReaderOptions(delimiter="\t", header=["a", "b"], escape="")
    assert options.given() == {"delimiter": "\t", "escape": "", "header": ["a", "b"]}
    assert ReaderOptions.of(options.given()) == options


_TEXT = st.text(alphabet='ab"\\,\n\r 天', max_size=6)


@given(st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=5), st.sampled_from([1, 2, 7, 2**20]))
def test_the_scanner_reads_escaped_values_wherever_its_blocks_end(
    rows: list[tuple[str, str]], block: int
) -> None:
    class Slowly(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            return super().read(block)

    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = "".join(f"{quoted(first)},{quoted(second)}\n" for first, second in rows)
    scanned = Scanner(",", '"', "\\").rows(Slowly(text, newline=""))
    assert [tuple(row) for _, row in scanned] == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('id||text\n1||"a\n2||b\n', "line 2: a quote opens here and is never closed"),
        ('id||text\n1||"a" b\n', "line 2: text follows the closing quote"),
        ("id||text\n1||a\n2\n", "line 3: 1 values instead of 2"),
        ("id||text\n1||a||b\n", "line 2: 3 values instead of 2"),
    ],
)
def test_the_scanner_names_the_line_of_a_fault(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(written(tmp_path / "a.csv", content), delimiter="||")


FASTTEXT = "__label__sauce __label__cheese How much does it cost ?\n__label__food Is it  good?\n\n"


def test_fasttext_files_are_told_by_their_content(tmp_path: Path) -> None:
    path = written(tmp_path / "cooking.txt", FASTTEXT)
    assert read(path) == [
        {"label": ["sauce", "cheese"], "text": "How much does it cost ?"},
        {"label": ["food"], "text": "Is it  good?"},
        {"label": [], "text": ""},
    ]
    one = written(tmp_path / "one.train", "__label__1 a __label__ b\n__label__2 c\nd\n")
    assert read(one) == [
        {"label": "1", "text": "a __label__ b"},
        {"label": "2", "text": "c"},
        {"label": None, "text": "d"},
    ]


def test_fasttext_lines_that_are_not_utf8_keep_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(codecs.BOM_UTF8 + b"__label__x a\n__label__\xff b\xff\n")
    (file,) = find_files([str(tmp_path)])
    rows = [row for batch in read_batches(file) for row in batch.to_pylist()]
    assert rows == [{"label": b"x", "text": b"a"}, {"label": b"\xff", "text": b"b\xff"}]
    assert read_schema(file).names == ["label", "text"]
