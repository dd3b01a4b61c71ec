"""Tests of distlstm.stages.serving.payload."""

import json
from typing import Any

import pytest

from distlstm.stages.serving.payload import Question, RefusedError, read_question
from distlstm.stages.serving.settings import Limits

LIMITS = Limits(texts=3, text_chars=10)


def read(body: Any, *, gives_sets: bool = False) -> Question:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_question(content, LIMITS, gives_sets=gives_sets)


def test_a_text_and_a_list_of_texts_are_read() -> None:
    assert read({"text": "a"}) == Question(texts=("a",), is_list=False)
    asked = read({"texts": ["a", "天气"], "top_k": 2, "min_score": 1})
    assert asked == Question(texts=("a", "天气"), is_list=True, top_k=2, min_score=1)
    assert read({"texts": []}).texts == ()


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"text": "a"} more'])
def test_what_is_not_json_is_refused_with_400(body: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        read(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ([], "object"),
        ({}, "either"),
        ({"text": "a", "texts": []}, "either"),
        ({"text": None}, "text is null"),
        ({"text": 7}, "text is not a string"),
        ({"texts": "a"}, "texts is not a list"),
        ({"texts": ["a", None]}, r"texts\[1\] is null"),
        ({"texts": ["a", "b", {}]}, r"texts\[2\] is not a string"),
        ({"texts": ["a", "\ud800"]}, r"texts\[1\] has half"),
        ({"text": "a", "top_k": 0}, "top_k"),
        ({"text": "a", "top_k": True}, "top_k"),
        ({"text": "a", "top_k": 1.5}, "top_k"),
        ({"text": "a", "min_score": 2}, "min_score"),
        ({"text": "a", "min_score": "0.5"}, "min_score"),
        ({"text": "a", "topk": 1}, "none of"),
    ],
)
def test_a_wrong_value_is_named_and_refused_with_422(body: Any, named: str) -> None:
    with pytest.raises(RefusedError, match=named) as caught:
        read(body)
    assert caught.value.status == 422


@pytest.mark.parametrize(
    ("body", "named"),
    [({"texts": ["a"] * 4}, "4 texts"), ({"texts": ["a", "b" * 11]}, r"texts\[1\] has 11")],
)
def test_what_is_too_much_is_refused_with_413(body: Any, named: str) -> None:
    with pytest.raises(RefusedError, match=named) as caught:
        read(body)
    assert caught.value.status == 413


def test_a_model_of_label_sets_takes_no_top_k() -> None:
    with pytest.raises(RefusedError, match="leave out"):
        read({"text": "a", "top_k": 1}, gives_sets=True)


def test_a_refusal_never_repeats_what_was_sent() -> None:
    for body in ({"secret-key": "secret"}, {"text": ["secret"]}, {"texts": ["secret" * 9]}):
        with pytest.raises(RefusedError) as caught:
            read(body)
        assert "secret" not in str(caught.value)
