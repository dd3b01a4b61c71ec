"""A server that answers like the XML interface of Google Cloud Storage, as far as obstore asks.

Objects are in memory. A call needs the bearer token. A write may depend on the generation that it
replaces.

Run as a program: `python -m tests.google_server PORT BUCKET`.
"""

import itertools
import sys
import threading
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import gmtime, strftime, time
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

GENERATIONS = itertools.count(1_700_000_000_000_000)
PAGE = 1_000
TOKEN = "a-very-secret-token"
Answer = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True)
class StoredObject:
    """One generation of an object."""

    content: bytes
    generation: int = field(default_factory=lambda: next(GENERATIONS))
    written: float = field(default_factory=time)

    @property
    def etag(self) -> str:
        return f'"{md5(self.content, usedforsecurity=False).hexdigest()}"'

    @property
    def headers(self) -> dict[str, str]:
        return {
            "ETag": self.etag,
            "x-goog-generation": str(self.generation),
            "Last-Modified": formatdate(self.written, usegmt=True),
        }

    def listed(self, key: str) -> str:
        when = strftime("%Y-%m-%dT%H:%M:%S.000Z", gmtime(self.written))
        return (
            f"<Contents><Key>{escape(key)}</Key><Generation>{self.generation}</Generation>"
            f"<LastModified>{when}</LastModified><ETag>{escape(self.etag)}</ETag>"
            f"<Size>{len(self.content)}</Size></Contents>"
        )


class Bucket:
    """The objects of a bucket and its unfinished uploads."""

    def __init__(self) -> None:
        self._objects: dict[str, StoredObject] = {}
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._turn = threading.Lock()

    def put(self, key: str, content: bytes, expected: str | None) -> Answer:
        """Write an object if it has the expected generation, 0 for none; always without one."""
        with self._turn:
            found = self._objects.get(key)
            if expected is not None and int(expected) != (found.generation if found else 0):
                return failure(412, "PreconditionFailed")
            written = self._objects[key] = StoredObject(content)
        return 200, written.headers, b""

    def get(self, key: str, wanted: str | None) -> Answer:
        """An object, or the range `bytes=FIRST-LAST` of it."""
        found = self._objects.get(key)
        if found is None:
            return failure(404, "NoSuchKey")
        if wanted is None:
            return 200, found.headers, found.content
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        content = found.content[int(first) : int(last) + 1 if last else None]
        end = int(first) + len(content) - 1
        told = {"Content-Range": f"bytes {first}-{end}/{len(found.content)}"}
        return 206, found.headers | told, content

    def delete(self, key: str) -> Answer:
        with self._turn:
            is_gone = self._objects.pop(key, None) is None
        return failure(404, "NoSuchKey") if is_gone else (204, {}, b"")

    def list(self, asked: dict[str, str]) -> Answer:
        """One page of the keys, and of the directories if there is a delimiter."""
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        after = asked.get("continuation-token") or asked.get("start-after", "")
        most = int(asked.get("max-keys", PAGE))
        entries: dict[str, str] = {}
        for key in sorted(key for key in list(self._objects) if key.startswith(prefix)):
            name, found, _ = key.removeprefix(prefix).partition(delimiter or "\0")
            shown = f"{prefix}{name}{found}"
            if shown <= after or shown in entries:
                continue
            if len(entries) == most:
                token = escape(next(reversed(entries)))
                more = f"<NextContinuationToken>{token}</NextContinuationToken>"
                return page([*entries.values(), "<IsTruncated>true</IsTruncated>", more])
            entries[shown] = (
                f"<CommonPrefixes><Prefix>{escape(shown)}</Prefix></CommonPrefixes>"
                if found
                else self._objects[key].listed(key)
            )
        return page([*entries.values(), "<IsTruncated>false</IsTruncated>"])

    def begin_upload(self) -> Answer:
        upload = f"upload-{next(GENERATIONS)}"
        self._uploads[upload] = {}
        return (
            200,
            {},
            (
                "<InitiateMultipartUploadResult>"
                f"<UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            ).encode(),
        )

    def put_part(self, upload: str, number: int, content: bytes) -> Answer:
        if upload not in self._uploads:
            return failure(404, "NoSuchUpload")
        self._uploads[upload][number] = content
        return 200, {"ETag": StoredObject(content).etag}, b""

    def complete_upload(self, upload: str, key: str, body: bytes) -> Answer:
        """Join the parts that the body lists."""
        parts = self._uploads.pop(upload, None)
        if parts is None:
            return failure(404, "NoSuchUpload")
        numbers = [int(part.text or "") for part in ElementTree.fromstring(body).iter("PartNumber")]
        status, headers, _ = self.put(key, b"".join(parts[number] for number in numbers), None)
        etag = escape(headers["ETag"])
        result = (
            f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
        )
        return status, headers, result.encode()

    def abort_upload(self, upload: str) -> Answer:
        self._uploads.pop(upload, None)
        return 204, {}, b""


def failure(status: int, code: str) -> Answer:
    return status, {}, f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()


def page(entries: list[str]) -> Answer:
    return 200, {}, f"<ListBucketResult>{''.join(entries)}</ListBucketResult>".encode()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    buckets: dict[str, Bucket] = {}  # noqa: RUF012 (set once, before the server starts)

    def do_GET(self) -> None:
        self._answer(self._work())

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815 (named by the base class)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""

    def _work(self) -> Answer:
        address = urlsplit(self.path)
        name, _, key = address.path.strip("/").partition("/")
        asked = {k: v[0] for k, v in parse_qs(address.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return failure(401, "AuthenticationRequired")
        bucket = self.buckets.get(name)
        if bucket is None:
            return failure(404, "NoSuchBucket")
        return self._of_object(bucket, unquote(key), asked, body) if key else bucket.list(asked)

    def _of_object(self, bucket: Bucket, key: str, asked: dict[str, str], body: bytes) -> Answer:
        upload = asked.get("uploadId", "")
        match self.command:
            case "PUT" if upload:
                return bucket.put_part(upload, int(asked["partNumber"]), body)
            case "PUT":
                return bucket.put(key, body, self.headers.get("x-goog-if-generation-match"))
            case "POST":
                return (
                    bucket.complete_upload(upload, key, body) if upload else bucket.begin_upload()
                )
            case "DELETE":
                return bucket.abort_upload(upload) if upload else bucket.delete(key)
            case _:
                return bucket.get(key, self.headers.get("Range"))

    def _answer(self, answer: Answer) -> None:
        status, headers, body = answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def main(port: int, bucket: str) -> None:
    Handler.buckets = {bucket: Bucket()}
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
