"""Rows of fastText files: a line has labels, as words `__label__NAME`, and a text."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import pyarrow as pa

from distlstm.data.decoded_size import in_batches
from distlstm.data.files import SourceFile
from distlstm.data.opening import is_unicode, opened_text, text_column

_LABEL = re.compile(r"(?<!\S)__label__(\S+)\s*")
_Line = tuple[list[str], str]
"""The labels of a line, and its text."""


def read_fasttext(
    file: SourceFile, columns: Sequence[str] | None, batch_rows: int, one_type: bool
) -> Iterator[pa.RecordBatch]:
    """The rows of a file; see `reading.read_batches`. The types are always those of all rows."""
    del one_type
    schema = fasttext_schema(file)
    names = [name for name in schema.names if columns is None or name in columns]
    for lines in _lines(file, batch_rows):
        arrays = {
            "label": _label_column([labels for labels, _ in lines], schema.field("label").type),
            "text": text_column([text for _, text in lines]).cast(schema.field("text").type),
        }
        yield pa.RecordBatch.from_pydict({name: arrays[name] for name in names})


@lru_cache(maxsize=64)
def fasttext_schema(file: SourceFile) -> pa.Schema:
    """Columns `label` and `text`, from a pass over the file.

    `label` is a list if any line has several labels; a column that is not all UTF-8 is binary.
    """
    has_sets, label, text = False, pa.string(), pa.string()
    for lines in _lines(file, 16_384):
        has_sets = has_sets or any(len(labels) > 1 for labels, _ in lines)
        label = label if all(is_unicode(x) for names, _ in lines for x in names) else pa.binary()
        text = text if all(is_unicode(x) for _, x in lines) else pa.binary()
    return pa.schema([("label", pa.list_(label) if has_sets else label), ("text", text)])


def _lines(file: SourceFile, at_once: int) -> Iterator[list[_Line]]:
    with opened_text(file) as lines:
        for some in in_batches(lines, len, at_once):
            yield list(map(_parse, some))


def _parse(line: str) -> _Line:
    return _LABEL.findall(line), _LABEL.sub("", line).rstrip("\r\n")


def _label_column(labels: Sequence[list[str]], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind):
        return text_column([next(iter(names), None) for names in labels]).cast(kind)
    offsets = [0]
    for names in labels:
        offsets.append(offsets[-1] + len(names))
    values = text_column([name for names in labels for name in names]).cast(kind.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
