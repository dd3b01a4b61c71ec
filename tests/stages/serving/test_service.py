"""Tests of `distlstm serve`: a real service on a Ray of its own, over HTTP."""

import http.client
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import distlstm
from tests.commands import run
from tests.ports import free_port
from tests.sockets import LOOPBACK, listeners
from tests.stages.serving.models import made, ragged_texts, saved

pytestmark = pytest.mark.ray
pytest.importorskip("uvicorn", reason="needs the extra `serve`")
TOKEN = "the-token-of-the-tests-0123456789"
SECONDS = 300


@dataclass
class Service:
    """A running service."""

    process: subprocess.Popen[bytes]
    port: int
    model: Path
    errors: Path

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of the answer to a request with the token."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        sent = {"Authorization": f"Bearer {TOKEN}"} if headers is None else dict(headers)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def predict(self, **content: Any) -> Any:
        """The JSON that answers a request that must succeed."""
        status, body = self.ask("POST", "/predict", json.dumps(content).encode())
        assert status == 200, body
        return json.loads(body)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("service")
    model, port, errors = saved(directory / "model", made(0)), free_port(), directory / "errors"
    ours = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with errors.open("wb") as stderr:
        command = [sys.executable, "-m", "distlstm", "serve", "--model", str(model), "--json"]
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**ours, "DISTLSTM_SERVE_TOKEN": TOKEN},
        )
    found = Service(process, port, model, errors)
    try:
        wait_until(lambda: "is served at" in errors.read_text() or process.poll() is not None)
        assert process.poll() is None, errors.read_text()
        yield found
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=SECONDS)


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.1)


def test_answers_are_those_of_predict_to_the_last_bit(service: Service) -> None:
    texts = ragged_texts(200)
    model = distlstm.load_model(service.model)
    expected = [
        {name.removeprefix("predicted_"): value for name, value in row.items()}
        for row in model.predict(texts)
    ]
    answers: dict[int, Any] = {}

    def ask(indices: range) -> None:
        for i in indices:
            answers[i] = service.predict(text=texts[i])

    threads = [threading.Thread(target=ask, args=(range(i, len(texts), 8),)) for i in range(8)]
    for thread in threads:
        thread.start()
    together = service.predict(texts=texts)
    for thread in threads:
        thread.join()
    assert together == {"predictions": expected, "model": model.fingerprint}
    assert [answers[i] for i in range(len(texts))] == [
        {**row, "model": model.fingerprint} for row in expected
    ]


def test_top_k_and_min_score_are_those_of_predict(service: Service) -> None:
    texts = ragged_texts(10)
    model = distlstm.load_model(service.model)
    found = service.predict(texts=texts, top_k=2, min_score=0.7)["predictions"]
    rows = [{f"predicted_{name}": value for name, value in row.items()} for row in found]
    assert rows == list(model.predict(texts, top_k=2, min_score=0.7))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "named"),
    [
        ("POST", "/predict", b"{", 400, "JSON"),
        ("POST", "/predict", b'{"texts": ["a", null]}', 422, "texts[1]"),
        ("POST", "/predict", b'{"texts": [' + b'"a",' * 1000 + b'"a"]}', 413, "1,001 texts"),
        ("POST", "/predict", b'{"text": "' + b"a" * 100_001 + b'"}', 413, "100,001 characters"),
        ("POST", "/predict", b" " * (2**20 + 1), 413, "bytes"),
        ("GET", "/predict", None, 405, "POST"),
        ("POST", "/model", b"", 405, "GET"),
        ("GET", "/elsewhere", None, 404, "/predict"),
    ],
)
def test_a_wrong_request_is_told_why(
    service: Service, method: str, path: str, body: bytes | None, status: int, named: str
) -> None:
    found, answer = service.ask(method, path, body)
    assert found == status
    assert named in json.loads(answer)["error"]


def test_a_body_of_unknown_size_is_cut_off_at_the_limit(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=SECONDS)
    pieces = (b" " * 2**16 for _ in range(40))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        connection.request("POST", "/predict", pieces, headers, encode_chunked=True)
        status = connection.getresponse().status
    except (BrokenPipeError, ConnectionResetError):
        status = 413  # it has closed the connection before all was sent
    finally:
        connection.close()
    assert status == 413


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
    ],
)
def test_without_the_token_only_the_health_is_told(
    service: Service, headers: dict[str, str]
) -> None:
    for method, path in (("POST", "/predict"), ("GET", "/model"), ("GET", "/metrics")):
        status, answer = service.ask(method, path, b'{"text": "a"}', headers)
        assert status == 401
        assert TOKEN.encode() not in answer
    assert service.ask("GET", "/healthz", headers=headers)[0] == 200


def test_the_card_tells_what_the_model_is(service: Service) -> None:
    card = json.loads(service.ask("GET", "/model")[1])
    assert card["labels"] == list(distlstm.load_model(service.model).labels)
    assert card["fingerprint"] == distlstm.load_model(service.model).fingerprint
    assert card["metrics"] == {"accuracy": 0.9}
    assert card["model"]["hidden_dim"] == 24
    assert card["bytes"] > 1000


def test_the_interface_is_described_in_openapi_and_on_a_page(service: Service) -> None:
    from fastapi.openapi.models import OpenAPI

    document = json.loads(service.ask("GET", "/openapi.json")[1])
    assert OpenAPI.model_validate(document).openapi == "3.1.0"
    assert set(document["paths"]) == {"/predict", "/model", "/healthz", "/metrics"}
    page = service.ask("GET", "/docs")[1].decode()
    assert all(path in page for path in document["paths"])
    assert "<script" not in page


def test_prometheus_finds_the_metrics_of_all_replicas(service: Service) -> None:
    def counted(line: str) -> float:
        text = service.ask("GET", "/metrics")[1].decode()
        name, _, tag = line.partition(" ")
        return sum(
            float(each.rpartition(" ")[2])
            for each in text.splitlines()
            if each.startswith(f"ray_distlstm_serve_{name}{{") and tag in each
        )

    before = counted("texts_total"), counted('requests_total status="200"')
    for _ in range(5):
        service.predict(texts=["goal bank", "rain"])
    service.ask("POST", "/predict", b"{")
    wait_until(lambda: counted("texts_total") >= before[0] + 10)
    wait_until(lambda: counted('requests_total status="400"') >= 1)
    wait_until(lambda: counted('requests_total status="200"') >= before[1] + 5)
    assert counted("tokens_total") >= 15
    assert counted('request_seconds_bucket le="+Inf"') >= 6
    assert counted("batch_texts_count") >= 1


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs the /proc of Linux")
def test_nothing_listens_beyond_loopback(service: Service) -> None:
    seen = listeners(service.process.pid)
    assert any(each.command.startswith("ray::ServeRe") for each in seen)
    assert {each for each in seen if each.address not in LOOPBACK} == set()


def test_neither_the_token_nor_a_text_is_in_a_log(service: Service) -> None:
    texts = ["confidential-0123456789"]
    service.predict(texts=texts)
    service.ask("POST", "/predict", b'{"texts": ["confidential-0123456789", 7]}')
    (session,) = {
        Path(line.partition("=")[2])
        for line in arguments_below(service.process.pid)
        if line.startswith("--session-dir=")
    }
    logs = [path for path in session.rglob("*") if path.is_file()]
    assert len(logs) > 5
    for path in logs:
        content = path.read_bytes()
        assert TOKEN.encode() not in content, path
        assert texts[0].encode() not in content, path
    assert not any(TOKEN in line for line in arguments_below(service.process.pid))


def arguments_below(root: int) -> list[str]:
    """The arguments of a process and of those that it started."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for pid, parent in (map(int, line.split()) for line in table.decode().splitlines()):
        children.setdefault(parent, []).append(pid)
    pending, found = [root], []
    while pending:
        pid = pending.pop()
        pending += children.get(pid, [])
        path = Path(f"/proc/{pid}/cmdline")
        found += path.read_text(errors="replace").split("\0") if path.exists() else []
    return found


def test_a_new_model_takes_over_without_a_failed_request(service: Service) -> None:
    texts = ragged_texts(30)
    before = distlstm.load_model(service.model)
    expected = {before.fingerprint: before.predict(texts).scores}
    statuses: list[int] = []
    answers: list[tuple[int, str, float | None]] = []
    ended = threading.Event()

    def hammer(start: int) -> None:
        i = start
        while not ended.is_set():
            i = (i + 1) % len(texts)
            status, body = service.ask("POST", "/predict", json.dumps({"text": texts[i]}).encode())
            statuses.append(status)
            answer = json.loads(body)
            answers.append((i, answer.get("model", ""), answer.get("score")))

    threads = [threading.Thread(target=hammer, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    try:
        saved(service.model, made(1))
        after = distlstm.load_model(service.model)
        expected[after.fingerprint] = after.predict(texts).scores
        wait_until(lambda: any(model == after.fingerprint for _, model, _ in answers[-6:]))
        (service.model / "model.json").write_text('{"format_version": 2}')  # damaged
        seen = len(answers)
        wait_until(lambda: len(answers) > seen + 50)
        saved(service.model, made(2))
        last = distlstm.load_model(service.model)
        expected[last.fingerprint] = last.predict(texts).scores
        wait_until(lambda: any(model == last.fingerprint for _, model, _ in answers[-6:]))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}
    assert {model for _, model, _ in answers} == set(expected)
    assert all(score == expected[model][i] for i, model, score in answers)


def test_sigterm_ends_it_once_the_requests_in_flight_are_answered(service: Service) -> None:
    bodies = [
        json.dumps({"texts": [f"{i} {k} " + "x " * 900 for k in range(200)]}).encode()
        for i in range(3)
    ]
    statuses: list[int] = []

    def ask(body: bytes) -> None:
        statuses.append(service.ask("POST", "/predict", body)[0])

    threads = [threading.Thread(target=ask, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    time.sleep(0.5)  # the requests are on their way; how far does not matter
    assert len(statuses) < len(bodies), "the requests are too small for this test"
    service.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    out, _ = service.process.communicate(timeout=SECONDS)
    assert statuses == [200] * len(bodies)
    assert service.process.returncode == 0
    assert json.loads(out)["url"] == f"http://127.0.0.1:{service.port}"


def test_beyond_loopback_it_does_not_start_without_a_token(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(tmp_path / "model", made())
    monkeypatch.delenv("DISTLSTM_SERVE_TOKEN", raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.1", "127.example.com"):
        outcome = run(capfd, "serve", "--model", model, "--host", host)
        assert outcome.code == 2
        assert "DISTLSTM_SERVE_TOKEN" in outcome.err
    monkeypatch.setenv("DISTLSTM_SERVE_TOKEN", "short-secret")
    outcome = run(capfd, "serve", "--model", model, "--host", "0.0.0.0")
    assert outcome.code == 2
    assert "16 characters" in outcome.err
    assert "short-secret" not in outcome.err


def test_what_cannot_be_served_is_refused_before_ray_starts(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", made())
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as taken:
        assert "cannot listen" in refusal(model, "--port", taken.server_port)
    assert "at least one" in refusal(model, "--replicas", "0:2")
    (model / "model.safetensors").write_bytes(b"damaged")
    assert "damaged" in refusal(model, "--port", free_port())


def refusal(model: Path, *options: object) -> str:
    """What a service writes that does not start, in a process where Ray does not run yet."""
    command = [sys.executable, "-m", "distlstm", "serve", "--model", model, *options]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr
