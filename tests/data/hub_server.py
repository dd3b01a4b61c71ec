"""A server that answers as the Hugging Face Hub does, for one data set in a directory."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

COMMIT = "0" * 40
_API, _FILES = "/api/datasets/me/reviews", "/datasets/me/reviews/resolve/main/"


class _Handler(BaseHTTPRequestHandler):
    root: Path

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        path = unquote(path)
        if path in (_API, f"{_API}/revision/main"):
            self._send({"id": "me/reviews", "sha": COMMIT, "siblings": []})
        elif path.startswith(f"{_API}/tree/main"):
            self._list(path.removeprefix(f"{_API}/tree/main").strip("/"), "recursive=true" in query)
        elif path.startswith(f"{_API}/paths-info/"):
            paths = [self.root / name for name in parse_qs(body.decode())["paths"]]
            self._send([self._entry(path) for path in paths if path.exists()])
        elif path.startswith(_FILES):
            self._send_file(self.root / path.removeprefix(_FILES))
        else:
            self._send({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def _list(self, below: str, recursive: bool) -> None:
        directory = self.root / below
        if directory.is_dir():
            found = directory.rglob("*") if recursive else directory.iterdir()
            self._send([self._entry(path) for path in sorted(found)])
        else:
            self._send({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    def _entry(self, path: Path) -> dict[str, Any]:
        kind = "directory" if path.is_dir() else "file"
        size = 0 if path.is_dir() else path.stat().st_size
        name = str(path.relative_to(self.root))
        return {"type": kind, "path": name, "oid": "1" * 40, "size": size}

    def _send_file(self, path: Path) -> None:
        content, headers = path.read_bytes(), {"ETag": '"1"', "X-Repo-Commit": COMMIT}
        first, _, last = (self.headers.get("Range") or "").removeprefix("bytes=").partition("-")
        if first:
            end = min(int(last or len(content)), len(content) - 1)
            span = f"bytes {first}-{end}/{len(content)}"
            self._send(content[int(first) : end + 1], 206, {**headers, "Content-Range": span})
        else:
            self._send(content, 200, headers)

    def _send(self, body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = _answer  # noqa: N815


@contextmanager
def hub_of(root: Path) -> Iterator[str]:
    """Serve a directory as the data set `me/reviews`; the address of the server."""
    handler = type("Handler", (_Handler,), {"root": root})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
