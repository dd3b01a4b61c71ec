"""The corpus of `distlstm demo`: the documentation in the running Python's standard library.

In: the library's sources, the docstrings of its C modules and its language topics. Out: labelled
train and test files and an unlabelled directory, all Parquet. A row is a paragraph of English; its
label is the family of modules that it documents. There are no network access and no random numbers,
and sources are parsed, not imported, so one Python distribution always gives the same bytes.
"""

import ast
import hashlib
import importlib
import re
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.errors import UserError

MODULES_OF_FAMILY: dict[str, str] = {
    "concurrency": """
        asyncio concurrent contextvars multiprocessing queue sched select selectors signal
        subprocess threading _asyncio _contextvars _posixsubprocess _queue _signal _thread
        _threading_local""",
    "data_types": """
        array bisect builtins calendar cmath collections copy dataclasses datetime decimal enum
        fractions functools graphlib heapq itertools math numbers operator pprint random reprlib
        statistics struct time weakref zoneinfo _bisect _collections _collections_abc _datetime
        _decimal _functools _heapq _operator _pydecimal _pylong _random _statistics _strptime
        _struct _weakref _weakrefset""",
    "files": """
        aifc bz2 chunk compression dbm fcntl filecmp fileinput fnmatch genericpath glob gzip imghdr
        io linecache lzma marshal mmap nt ntpath nturl2path os pathlib pickle pickletools posix
        posixpath shelve shutil sndhdr sqlite3 stat sunau tarfile tempfile wave xdrlib zipapp
        zipfile zipimport zlib _bz2 _compression _io _lzma _pickle _pyio _sqlite3""",
    "interfaces": """
        argparse cmd curses getopt getpass idlelib optparse readline rlcompleter tkinter turtle
        turtledemo _curses _pyrepl""",
    "language": """
        abc ast atexit code codeop compileall contextlib dis gc imp importlib inspect keyword
        modulefinder opcode pkgutil py_compile pyclbr runpy site symtable sys tabnanny token
        tokenize types typing _abc _ast _frozen_importlib _frozen_importlib_external _imp _py_abc
        _symtable annotationlib""",
    "networking": """
        asynchat asyncore cgi email ftplib http imaplib ipaddress mailbox mailcap mimetypes nntplib
        poplib smtpd smtplib socket socketserver ssl telnetlib urllib webbrowser wsgiref xmlrpc
        _socket _ssl""",
    "testing": """
        bdb cProfile cgitb doctest faulthandler logging pdb profile pstats timeit trace traceback
        tracemalloc unittest warnings _lsprof _tracemalloc _warnings""",
    "text": """
        base64 binascii codecs configparser csv difflib encodings gettext html json locale plistlib
        pyexpat quopri re shlex sre_compile sre_constants sre_parse string stringprep textwrap
        tomllib unicodedata uu xml _codecs _csv _elementtree _json _locale _markupbase _sre
        _string""",
}
"""The top-level modules of each family; other modules give unlabelled rows only."""

C_MODULES = """
    _asyncio _bisect _bz2 _codecs _collections _contextvars _csv _curses _datetime _decimal
    _elementtree _functools _heapq _imp _io _json _locale _lsprof _lzma _operator _pickle
    _posixsubprocess _queue _random _signal _socket _sqlite3 _sre _ssl _statistics _string _struct
    _symtable _thread _tracemalloc _warnings _weakref array atexit binascii builtins cmath fcntl
    faulthandler gc itertools marshal math mmap posix pyexpat select sys time unicodedata zlib"""
"""C modules, which have docstrings but no source; importing them has no side effects."""

TOPICS_OF_FAMILY: dict[str, str] = {
    "data_types": "numeric-types sequence-types typesmapping typesseq",
    "testing": "debugger",
    "text": "formatstrings string-methods strings",
}
"""The topics (of `pydoc_data.topics`) of other families than `language`."""

TEST_PACKAGES = {"idle_test", "test", "tests"}
TEST_PERCENT = 15
MIN_WORDS, MAX_WORDS = 4, 60
NUM_UNLABELLED_FILES = 4
ROW_GROUP_SIZE = 2_000

_STRING_OR_COMMENT = re.compile(
    r'"""(?:\\.|[^\\])*?"""' + r"|'{3}(?:\\.|[^\\])*?'{3}"
    r'|"(?:\\.|[^"\\\n])*"' + r"|'(?:\\.|[^'\\\n])*'"
    r"|(?P<block>^[ \t]*\#[^\n]*(?:\n[ \t]*\#[^\n]*)*)|\#[^\n]*",
    re.DOTALL | re.MULTILINE,
)
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_BULLET = re.compile(r"(?:--?|[*+o•]|\(?\d{1,2}[.)])\s+")
_FIELD = re.compile(r"(?:[\w*]+|:\w[^:]*)(?:\s--?|:)\s")
_NOT_PROSE = re.compile(
    r"[\w.]+\(.*\)(?:\s*(?:->|=)\s*[\w\[\]., ()|]{1,40})?[:.]?$"  # a signature
    r"|\W*$|\.\. |-\*-|vim?:|.*\S {3,}\S"  # a heading's underline, a directive, a table
)
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\"'`][.!?])\s+(?=[A-Z\"'`(])")
_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*")
_FUNCTION_WORD = re.compile(
    r"\b(?:an?|the|this|that|these|its?|of|to|in|on|at|by|for|from|with|without|into|as|and|or|but"
    r"|not?|if|when|whether|which|is|are|be|been|was|were|has|have|can|may|must|should|will|does|do"
    r"|you|we|all|any|each|only|used|using|returns)\b",
    re.IGNORECASE,
)
_NOT_LETTERS = re.compile(r"[\W\d_]+")
_C_MEMBERS = (
    types.BuiltinFunctionType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
)


@dataclass(frozen=True, kw_only=True)
class DemoCorpus:
    """The paths and sizes of the demo's corpus."""

    train: Path
    """Parquet file with the string columns `text`, `label`, `module` and `kind`."""
    test: Path
    """The same columns; `train` has none of its texts, not even with other case or punctuation."""
    unlabelled: Path
    """Directory of Parquet files: `id` (int64, ascending over the files), `module`, `text`.

    It has none of the texts of `test`, so a language model may learn from it."""
    num_train: int
    num_test: int
    num_unlabelled: int
    families: tuple[str, ...]
    """The labels, sorted."""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A documentation text, or a paragraph of one."""

    text: str
    module: str
    kind: str
    """`docstring`, `builtin` (the docstring of a C module), `topic` or `comment`."""
    family: str | None

    @cached_property
    def digest(self) -> bytes:
        """A stable hash of the lower-cased letters only, so that near-duplicates have the same."""
        return hashlib.sha256(_NOT_LETTERS.sub("", self.text.lower()).encode()).digest()

    @property
    def is_test(self) -> bool:
        """Whether a labelled passage goes to the test split."""
        return int.from_bytes(self.digest[:4]) % 100 < TEST_PERCENT


def build_stdlib_corpus(directory: Path) -> DemoCorpus:
    """Write the demo's corpus into a directory; it replaces an earlier one file by file.

    Raises:
        UserError: this Python does not have the sources of its standard library.
    """
    stdlib = Path(sysconfig.get_path("stdlib"))
    from_sources = list(source_passages(stdlib))
    if not from_sources:
        raise UserError(
            f"No standard-library source found in {stdlib}; the demo corpus is made from it. "
            "Use a Python that has these sources, or train on your own data."
        )
    return write_corpus([*from_sources, *builtin_passages()], directory=directory)


def write_corpus(passages: Sequence[Passage], *, directory: Path) -> DemoCorpus:
    """Write paragraphs as train, test and unlabelled Parquet files.

    Labelled rows are sorted by hash, which mixes the families; unlabelled rows by module.
    """
    labelled = sorted(labelled_passages(passages), key=lambda passage: passage.digest)
    train = [passage for passage in labelled if not passage.is_test]
    test = [passage for passage in labelled if passage.is_test]
    unlabelled = unlabelled_passages(passages, without=test)
    corpus = DemoCorpus(
        train=directory / "train.parquet",
        test=directory / "test.parquet",
        unlabelled=directory / "unlabelled",
        num_train=len(train),
        num_test=len(test),
        num_unlabelled=len(unlabelled),
        families=tuple(sorted({str(passage.family) for passage in labelled})),
    )
    corpus.unlabelled.mkdir(parents=True, exist_ok=True)
    _write_labelled(train, path=corpus.train)
    _write_labelled(test, path=corpus.test)
    _write_unlabelled(unlabelled, directory=corpus.unlabelled)
    return corpus


def labelled_passages(passages: Iterable[Passage]) -> list[Passage]:
    """The documentation of the families, each text once, without texts that two families share."""
    first: dict[bytes, Passage] = {}
    shared: set[bytes] = set()
    for passage in passages:
        if passage.family is None or passage.kind == "comment":
            continue
        if first.setdefault(passage.digest, passage).family != passage.family:
            shared.add(passage.digest)
    return [passage for digest, passage in first.items() if digest not in shared]


def unlabelled_passages(
    passages: Iterable[Passage], *, without: Iterable[Passage]
) -> list[Passage]:
    """All passages with other texts than those of some, each text once, ordered by module."""
    first: dict[bytes, Passage] = {}
    for passage in passages:
        first.setdefault(passage.digest, passage)
    for passage in without:
        first.pop(passage.digest, None)
    return sorted(first.values(), key=lambda passage: passage.module)


def source_passages(stdlib: Path) -> Iterator[Passage]:
    """Paragraphs of the docstrings, topics and comments below a standard-library directory.

    Missing files are skipped, and so are files that are not the library's own (site-packages,
    additions of a distribution).
    """
    for path in _source_paths(stdlib):
        source = path.read_text(encoding="utf-8", errors="replace")
        for passage in _read_source(source, parts=path.relative_to(stdlib).with_suffix("").parts):
            yield from _paragraphs_of(passage)


def _source_paths(stdlib: Path) -> Iterator[Path]:
    """The library's own sources, in an order that does not depend on file system or locale."""
    for name in sorted(sys.stdlib_module_names | {"test"}):
        yield from filter(Path.is_file, [stdlib / f"{name}.py"])
        yield from sorted((stdlib / name).rglob("*.py"), key=lambda path: path.parts)


def _read_source(source: str, *, parts: tuple[str, ...]) -> Iterator[Passage]:
    """The passages of a file. Tests, half of the library, have few docstrings: only comments."""
    module = ".".join(parts).removesuffix(".__init__")
    family = _family_of(parts[0], MODULES_OF_FAMILY)
    if module == "pydoc_data.topics":
        for topic, text in _topics(source):
            family = _family_of(topic, TOPICS_OF_FAMILY) or "language"
            yield Passage(text=text, module=module, kind="topic", family=family)
    elif TEST_PACKAGES.isdisjoint(parts):
        for text in _docstrings(source):
            yield Passage(text=text, module=module, kind="docstring", family=family)
    for token in _STRING_OR_COMMENT.finditer(source):
        if token["block"]:
            text = re.sub(r"(?m)^[ \t]*#+:?", "", token["block"])
            yield Passage(text=text, module=module, kind="comment", family=family)


def _family_of(name: str, members_of_family: dict[str, str]) -> str | None:
    found = [family for family, members in members_of_family.items() if name in members.split()]
    return found[0] if found else None


def _parse(source: str) -> ast.Module:
    """The syntax tree of a source; an empty one if it is not Python (such as a template)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def _topics(source: str) -> Iterator[tuple[str, str]]:
    """The names and texts of the language topics, from the entries of a dictionary literal."""
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.Dict):
            yield from ast.literal_eval(node).items()


def _docstrings(source: str) -> Iterator[str]:
    """The docstrings of the module and of every class and function in it, in source order."""
    waiting: list[ast.AST] = [_parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
        for name in ("finalbody", "orelse", "handlers", "body"):
            inner = getattr(node, name, None)
            if isinstance(inner, list):
                waiting += reversed(inner)


def builtin_passages() -> Iterator[Passage]:
    """Paragraphs of the docstrings of the C modules that this Python has."""
    for name in sorted(C_MODULES.split()):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        family = _family_of(name, MODULES_OF_FAMILY)
        for text in _docstrings_of_members(module):
            whole = Passage(text=text, module=name, kind="builtin", family=family)
            yield from _paragraphs_of(whole)


def _docstrings_of_members(owner: types.ModuleType | type) -> Iterator[str]:
    """Docstrings of a C module or class and of its public members, by name.

    Aliases, values (whose docstring is that of their type) and hooks (which a program may have
    replaced) are left out.
    """
    yield str(owner.__doc__ or "")
    for name, member in sorted(vars(owner).items()):
        if name.startswith("_") or name.endswith("hook"):
            continue
        if isinstance(member, type) and member.__name__ == name:
            yield from _docstrings_of_members(member)
        elif isinstance(member, _C_MEMBERS):
            yield str(member.__doc__ or "")


def _paragraphs_of(passage: Passage) -> Iterator[Passage]:
    return (replace(passage, text=text) for text in prose(passage.text))


def prose(text: str) -> Iterator[str]:
    """The paragraphs of English in a documentation text, each on one line.

    Signatures, doctests, heading underlines, tables and code are left out. Each item of a list is a
    paragraph, and a paragraph of more than 60 words is split into its sentences.
    """
    for block in _BLANK_LINES.split(text.expandtabs()):
        for paragraph in _joined_lines(block):
            is_long = len(paragraph.split()) > MAX_WORDS
            texts = _SENTENCE_END.split(paragraph) if is_long else [paragraph]
            yield from filter(_is_prose, texts)


def _joined_lines(block: str) -> Iterator[str]:
    """Join the wrapped lines of a block into paragraphs.

    A list item, a field (`name: text`) or a smaller indent begins a paragraph. A line that is not
    prose ends one, and a doctest ends the block.
    """
    lines: list[str] = []
    indent = 0
    for line in block.splitlines():
        text = line.lstrip()
        if text.startswith(">>>"):
            break
        last_indent, indent = indent, len(line) - len(text)
        bullet, not_prose = _BULLET.match(text), _NOT_PROSE.match(text)
        if bullet or not_prose or indent < last_indent or _FIELD.match(text):
            yield " ".join(lines)
            lines = []
        if not not_prose and (lines or not text.isidentifier()):
            lines.append(text[bullet.end() if bullet else 0 :].rstrip())
    yield " ".join(lines)


def _is_prose(text: str) -> bool:
    """Whether a text is English of the right length, and not code or a fragment.

    English has a function word in nearly every sentence, and few marks among its letters.
    """
    tokens, words = text.split(), _WORD.findall(text)
    if min(len(tokens), len(words)) < MIN_WORDS or len(tokens) > MAX_WORDS:
        return False
    num_letters = sum(map(len, words))
    num_marks = sum(map(len, tokens)) - num_letters
    is_clean = "::=" not in text and "\ufffd" not in text
    return is_clean and num_letters > 4 * num_marks and bool(_FUNCTION_WORD.search(text))


def _write_labelled(passages: Iterable[Passage], *, path: Path) -> None:
    schema = pa.schema([(name, pa.string()) for name in ("text", "label", "module", "kind")])
    rows = [
        {"text": p.text, "label": p.family, "module": p.module, "kind": p.kind} for p in passages
    ]
    _write_atomically(pa.Table.from_pylist(rows, schema=schema), path=path)


def _write_unlabelled(passages: Sequence[Passage], *, directory: Path) -> None:
    """Write the rows into a fixed number of files of nearly equal length."""
    schema = pa.schema([("id", pa.int64()), ("module", pa.string()), ("text", pa.string())])
    rows = [{"id": i, "module": p.module, "text": p.text} for i, p in enumerate(passages)]
    bounds = [len(rows) * n // NUM_UNLABELLED_FILES for n in range(NUM_UNLABELLED_FILES + 1)]
    for part, (start, stop) in enumerate(pairwise(bounds)):
        table = pa.Table.from_pylist(rows[start:stop], schema=schema)
        _write_atomically(table, path=directory / f"part-{part}.parquet")


def _write_atomically(table: pa.Table, *, path: Path) -> None:
    """Write a Parquet file so that readers see the old or the new one, even with other writers."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        pq.write_table(table, temporary, row_group_size=ROW_GROUP_SIZE)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
