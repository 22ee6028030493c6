# `make demo` and `make test` do all the set-up on a machine that has only Python and make.
PYTHON ?= python3
BIN := .venv/bin
DATA := $(wildcard ../shared/data)

.PHONY: demo test format clean

demo: .venv/installed
	$(BIN)/curate demo --to demo --overwrite

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	CURATE_TEST_DATA="$${CURATE_TEST_DATA:-$(if $(DATA),$(abspath $(DATA)))}" $(BIN)/pytest

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and from its pin: a looser requirement pulls the CUDA build, several gigabytes.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo build *.egg-info
