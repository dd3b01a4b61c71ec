"""`serve` against a plain server: FastAPI and uvicorn, with the same model called row by row.

Both run at the same time, on the same texts, and `wrk` asks them in turn with 1, 16 and 64
connections. Prints one JSON line, each figure a median over the rounds:
- `p50_ms`, `p99_ms`: milliseconds to an answer, by number of connections;
- `requests_per_second`, by number of connections; `plain_...` are those of the plain server;
- `of_plain`: requests per second over those of the plain server, by number of connections;
- `failed`: requests that were not answered with 200.

The model has the default sizes, random weights, a linear half and no cascade, which would answer
many texts without the recurrent layers. Texts are of 5 to 20 words.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

import distlstm
from distlstm.config import ExperimentConfig, ModelConfig
from distlstm.model.classifier import Classifier
from distlstm.model.directory import TrainedModel, save_model
from distlstm.model.linear import LinearModel
from distlstm.model.ngrams import NgramFeatures
from distlstm.text.labels import LabelSet
from distlstm.text.vocabulary import Vocabulary

CONNECTIONS = (1, 16, 64)
NUM_TEXTS, NUM_WORDS, NUM_LABELS = 5_000, 20_000, 8
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1_000.0}
_SCRIPT = """
local bodies = {{}}
for line in io.lines("{texts}") do bodies[#bodies + 1] = line end
local i = math.random(#bodies)
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  i = i % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[i])
end
"""


def write_model(path: Path) -> None:
    """A model with random weights, whose vocabulary is w0, w1, ..."""
    torch.manual_seed(0)
    words = pa.array(["<pad>", "<unk>", *(f"w{i}" for i in range(NUM_WORDS))])
    config = ExperimentConfig(model=ModelConfig(cascade=0))
    features = NgramFeatures(np.zeros(0, np.int32), np.ones(len(words), np.float32))
    save_model(
        TrainedModel(
            config=config,
            classifier=Classifier(config.model, vocab_size=len(words), num_labels=NUM_LABELS),
            vocabulary=Vocabulary(words),
            labels=LabelSet(tuple(f"label {i}" for i in range(NUM_LABELS))),
            temperature=1.0,
            linear=LinearModel(
                features, torch.randn(len(words), NUM_LABELS), torch.zeros(NUM_LABELS)
            ),
            metadata={
                "metrics": {},
                "corpus": {"columns": {"text": "text", "label": "label"}},
            },
        ),
        path,
    )


def write_texts(path: Path) -> None:
    """Bodies of requests, one a line."""
    rng = np.random.default_rng(0)
    texts = [
        " ".join(f"w{i}" for i in rng.integers(0, NUM_WORDS, size))
        for size in rng.integers(5, 21, NUM_TEXTS)
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def serve_plainly(model_path: str, port: int) -> None:
    """The plain server, in this process."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Body(BaseModel):
        text: str

    model, app = distlstm.load_model(model_path), FastAPI()

    async def predict(body: Body) -> dict[str, object]:
        (row,) = model.predict([body.text])
        return row

    predict.__annotations__["body"] = Body
    app.post("/predict")(predict)
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers."""
    body = json.dumps({"text": "w1 w2"}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", body, {"Content-Type": "application/json"}
    )
    until = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                answer.read()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.2)


def load(port: int, *, connections: int, seconds: int, script: Path) -> dict[str, float]:
    """What `wrk` measures."""
    command = [
        *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s")
    ]
    url = f"http://127.0.0.1:{port}/predict"
    found = subprocess.run(
        [*command, "-s", str(script), url], check=True, capture_output=True, text=True
    ).stdout
    figures = {
        f"p{share}_ms": float(value) * _UNITS[unit]
        for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)\b", found)
    }
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", found)))
    failed += sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", found)))
    rate = re.search(r"Requests/sec:\s+([\d.]+)", found)
    return {**figures, "requests_per_second": float(rate[1]) if rate else 0.0, "failed": failed}


def measure(*, rounds: int, seconds: int) -> dict[str, object]:
    """Start both servers, and ask them in turn."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        write_model(path / "model")
        write_texts(path / "texts")
        (path / "wrk.lua").write_text(_SCRIPT.format(texts=path / "texts"))
        ports = {"": 18_411, "plain_": 18_431}
        commands = {
            "": ["-m", "distlstm", "serve", "--quiet", "--model", str(path / "model")],
            "plain_": ["-m", "benchmarks.serving", "--plain", str(path / "model")],
        }
        servers = {
            name: subprocess.Popen(
                [sys.executable, *command, "--port", str(ports[name])],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
            )
            for name, command in commands.items()
        }
        try:
            for name, server in servers.items():
                wait_for(ports[name], server)
            runs: dict[str, list[dict[str, float]]] = {}
            for _ in range(rounds):
                for connections in CONNECTIONS:
                    for name, port in ports.items():
                        runs.setdefault(f"{name}{connections}", []).append(
                            load(
                                port,
                                connections=connections,
                                seconds=seconds,
                                script=path / "wrk.lua",
                            )
                        )
        finally:
            for server in servers.values():
                server.terminate()
            for server in servers.values():
                server.wait(60)
    return summary(runs)


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    """Medians over the rounds."""

    def median(run: str, figure: str) -> float:
        return round(statistics.median(each[figure] for each in runs[run]), 2)

    result: dict[str, object] = {
        f"{name}{figure}": {str(c): median(f"{name}{c}", figure) for c in CONNECTIONS}
        for name in ("", "plain_")
        for figure in ("p50_ms", "p99_ms", "requests_per_second")
    }
    ratios = {
        str(c): [
            ours["requests_per_second"] / max(plain["requests_per_second"], 1e-9)
            for ours, plain in zip(runs[f"{c}"], runs[f"plain_{c}"], strict=True)
        ]
        for c in CONNECTIONS
    }
    result["of_plain"] = {c: round(statistics.median(each), 2) for c, each in ratios.items()}
    result["failed"] = sum(each["failed"] for some in runs.values() for each in some)
    result["load"] = round(os.getloadavg()[0], 1)
    return result


def main() -> None:
    """Measure, or be the plain server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--plain", metavar="MODEL")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.plain is not None:
        serve_plainly(arguments.plain, arguments.port)
    elif shutil.which("wrk") is None:
        sys.exit("This benchmark needs wrk, such as Debian's package of this name.")
    else:
        print(json.dumps(measure(rounds=arguments.rounds, seconds=arguments.seconds)))


if __name__ == "__main__":
    main()
