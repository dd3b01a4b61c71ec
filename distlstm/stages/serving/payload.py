"""The body of `POST /predict`: JSON becomes texts and settings, or a refusal that says why."""

from dataclasses import dataclass
from typing import Any

from distlstm.json_text import parse_json
from distlstm.stages.serving.settings import Limits

_KEYS = ("text", "texts", "top_k", "min_score")


class RefusedError(Exception):
    """A request that is not answered; the message never contains a text of the request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Question:
    """The texts of a request."""

    texts: tuple[str, ...]
    is_list: bool
    """Whether the request had a list of texts, and gets a list of answers."""
    top_k: int | None = None
    min_score: float | None = None


def read_question(body: bytes, limits: Limits, *, gives_sets: bool) -> Question:
    """Read and check the body of a request.

    Raises:
        RefusedError: 400 if it is not JSON, 413 if it has too many texts or one that is too long,
            422 if its values are not those of a request.
    """
    try:
        content = parse_json(body)
    except ValueError as error:
        raise RefusedError(400, "The body is not JSON in UTF-8.") from error
    if not isinstance(content, dict):
        raise RefusedError(422, 'The body is not a JSON object such as {"text": "..."}.')
    unknown = [key for key in content if key not in _KEYS]
    if unknown:
        raise RefusedError(422, f"The body has a key that is none of: {', '.join(_KEYS)}.")
    if ("text" in content) == ("texts" in content):
        raise RefusedError(422, 'Give either "text", a string, or "texts", a list of strings.')
    top_k, min_score = content.get("top_k"), content.get("min_score")
    _check_settings(top_k, min_score, gives_sets=gives_sets)
    is_list = "texts" in content
    texts = content["texts"] if is_list else [content["text"]]
    _check_texts(texts, limits, is_list=is_list)
    return Question(texts=tuple(texts), is_list=is_list, top_k=top_k, min_score=min_score)


def _check_settings(top_k: Any, min_score: Any, *, gives_sets: bool) -> None:
    if gives_sets and not (top_k is None and min_score is None):
        raise RefusedError(
            422,
            "This model answers with every label that reaches its threshold; leave out top_k and "
            "min_score.",
        )
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        raise RefusedError(422, "top_k must be a whole number, at least 1.")
    if min_score is not None and (type(min_score) not in (int, float) or not 0 <= min_score <= 1):
        raise RefusedError(422, "min_score must be a number from 0 to 1.")


def _check_texts(texts: Any, limits: Limits, *, is_list: bool) -> None:
    if not isinstance(texts, list):
        raise RefusedError(422, "texts is not a list of strings.")
    if len(texts) > limits.texts:
        raise RefusedError(
            413, f"The request has {len(texts):,} texts; at most {limits.texts:,} are allowed."
        )
    for i, text in enumerate(texts):
        name = f"texts[{i}]" if is_list else "text"
        if not isinstance(text, str):
            kind = "null" if text is None else "not a string"
            raise RefusedError(422, f"{name} is {kind}; every text must be a string.")
        if len(text) > limits.text_chars:
            raise RefusedError(
                413,
                f"{name} has {len(text):,} characters; at most {limits.text_chars:,} are allowed.",
            )
        if not text.isascii() and not _is_unicode(text):
            raise RefusedError(
                422, f"{name} has half of a surrogate pair, which is not Unicode text."
            )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
