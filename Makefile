PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test lint bench suite suite-small clean

quickstart: .venv/installed
	$(BIN)/preimage fit --config configs/quickstart.yaml --test_after_fit

test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python benchmarks/throughput.py

suite: .venv/installed
	bash benchmarks/suite.sh

suite-small: .venv/installed
	bash benchmarks/suite.sh small

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-dev: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@ .venv/installed

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache
