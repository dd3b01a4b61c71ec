# make demo   sets up and runs the main job on real text
# make demo-service  a cluster, an object store, jobs and a service on this machine
# make test   sets up and passes the tests
# make faults kills commands at many moments, and feeds random tables; half an hour
# make soak   nodes that die at random moments, cut links, autoscaling; an hour
# make lint | bench | format | clean

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: env demo demo-service test faults soak lint format bench clean

env: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: env
	$(BIN)/distlstm demo demo

demo-service: env
	$(BIN)/python examples/service.py demo-service

test: env
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

faults: env
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist load -m "fault and not soak"

soak: env
	OMP_NUM_THREADS=1 $(BIN)/pytest -m soak

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: env
	$(BIN)/python -m benchmarks.batching
	$(BIN)/python -m benchmarks.data_parallel
	$(BIN)/python -m benchmarks.pretraining
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.prediction
	$(BIN)/python -m benchmarks.footprint
	$(BIN)/python -m benchmarks.agreement
	$(BIN)/python -m benchmarks.ledger
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.first_step
	$(BIN)/python -m benchmarks.tuning
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.runs

clean:
	rm -rf demo demo-service build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
