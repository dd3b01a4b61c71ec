"""The OpenAPI document of the service, and a page of it that needs nothing from elsewhere."""

from typing import Any

import jinja2

from distlstm import __version__
from distlstm.json_text import to_json
from distlstm.stages.serving.settings import ServiceSettings

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>distlstm service</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
h2 { margin: 2rem 0 .5rem; font-size: 1.1rem; }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: #f3f3f3; border-radius: 4px; }
code { padding: .1rem .3rem; } pre { padding: .7rem; overflow-x: auto; }
table { border-collapse: collapse; } td { padding: .15rem 1rem .15rem 0; vertical-align: top; }
</style></head><body>
<h1>{{ title }}</h1><p>{{ description }} The same as <a href="openapi.json">openapi.json</a>.</p>
{% for each in operations %}
<h2><code>{{ each.method }} {{ each.path }}</code> {{ each.summary }}</h2>
{% if each.description %}<p>{{ each.description }}</p>{% endif %}
{% if each.example %}<p>Request:</p><pre>{{ each.example }}</pre>{% endif %}
{% if each.answer %}<p>Answer:</p><pre>{{ each.answer }}</pre>{% endif %}
<table>{% for status, text in each.responses %}<tr><td>{{ status }}</td><td>{{ text }}</td></tr>
{% endfor %}</table>
{% endfor %}
</body></html>
"""

_NULLABLE_TEXT = {"type": ["string", "null"]}
_NULLABLE_SCORE = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_LABELS = {"type": ["array", "null"], "items": {"type": "string"}}
_SCORES = {"type": ["array", "null"], "items": {"type": "number"}}
_ANSWER = {
    "type": "object",
    "description": "`label` and `score` of a model with one label per text; `labels` and `scores` "
    "with top_k, and of a model of label sets. All are null for a text without visible characters.",
    "properties": {
        "label": _NULLABLE_TEXT,
        "score": _NULLABLE_SCORE,
        "labels": _LABELS,
        "scores": _SCORES,
        "model": {"type": "string", "description": "Fingerprint of the model that answered."},
    },
}
_EXAMPLE = {"label": "sport", "score": 0.75, "labels": ["sport", "money"], "scores": [0.75, 0.2]}
_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}


def document(settings: ServiceSettings) -> dict[str, Any]:
    """The OpenAPI document."""
    paths = {
        "/predict": {"post": _predict(settings)},
        "/model": {"get": _get("The model", "Labels, sizes, metrics, versions and fingerprint.")},
        "/healthz": {"get": _get("Whether a model is loaded", "Needs no token.")},
        "/metrics": {"get": _get("Metrics, for Prometheus", "Of all replicas.", "text/plain")},
    }
    needs_token = settings.token_digest is not None
    if needs_token:
        for path, operations in paths.items():
            for operation in operations.values():
                if path != "/healthz":
                    operation["responses"]["401"] = _failure("The token is missing or wrong.")
                    operation["security"] = [{"token": []}]
    schemes = {"token": {"type": "http", "scheme": "bearer"}} if needs_token else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "distlstm service",
            "version": __version__,
            "description": "Labels for texts, with the scores of distlstm batch-predict.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Answer": _ANSWER, "Error": _ERROR},
            "securitySchemes": schemes,
        },
    }


def _predict(settings: ServiceSettings) -> dict[str, Any]:
    limits = settings.limits
    text = {"type": "string", "maxLength": limits.text_chars}
    body = {
        "type": "object",
        "additionalProperties": False,
        "oneOf": [{"required": ["text"]}, {"required": ["texts"]}],
        "properties": {
            "text": text,
            "texts": {"type": "array", "maxItems": limits.texts, "items": text},
            "top_k": {
                "type": "integer",
                "minimum": 1,
                "description": "Also give the K most probable labels.",
            },
            "min_score": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "description": "Make the label null if its score is lower.",
            },
        },
    }
    answer = {"$ref": "#/components/schemas/Answer"}
    several = {"type": "object", "properties": {"predictions": {"type": "array", "items": answer}}}
    return {
        "summary": "Predict the label of a text, or of several",
        "description": f"At most {limits.body_bytes:,} bytes, {limits.texts:,} texts, and "
        f"{limits.text_chars:,} characters of a text.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": body,
                    "example": {"texts": ["a goal in the last minute"], "top_k": 2},
                }
            },
        },
        "responses": {
            "200": {
                "description": "An answer, or a list of them in the order of the texts.",
                "content": {
                    "application/json": {
                        "schema": {"oneOf": [answer, several]},
                        "example": {"predictions": [_EXAMPLE], "model": "1277441f6b09e9d3"},
                    }
                },
            },
            "400": _failure("The body is not JSON."),
            "413": _failure("The body or a text is too large, or there are too many texts."),
            "422": _failure("A value is not what it must be; the message names it."),
            "503": {"description": "Too many requests wait. Try again later."},
        },
    }


def _get(summary: str, description: str, kind: str = "application/json") -> dict[str, Any]:
    return {
        "summary": summary,
        "description": description,
        "responses": {"200": {"description": "Done.", "content": {kind: {}}}},
    }


def _failure(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def page(settings: ServiceSettings) -> str:
    """The document as a page of HTML, without scripts."""
    content = document(settings)
    operations = [
        {
            "method": method.upper(),
            "path": path,
            "summary": operation["summary"],
            "description": operation["description"],
            "example": _example(operation.get("requestBody", {})),
            "answer": _example(operation["responses"]["200"]),
            "responses": sorted(
                (status, each["description"]) for status, each in operation["responses"].items()
            ),
        }
        for path, methods in content["paths"].items()
        for method, operation in methods.items()
    ]
    template = jinja2.Environment(autoescape=True).from_string(_PAGE)
    return template.render(operations=operations, **content["info"])


def _example(message: dict[str, Any]) -> str:
    """The example of a request or an answer; empty if there is none."""
    example = message.get("content", {}).get("application/json", {}).get("example")
    return "" if example is None else to_json(example)
