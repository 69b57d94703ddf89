# make demo and make test set up all that they need; make help lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PART := tests/metrics tests/models tests/test_building.py tests/test_cli.py tests/data/reading tests/commands/test_python_api.py
# one torch thread for each of the test processes
TEST_ENV := OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=
.DEFAULT_GOAL := help
.PHONY: help install demo test lint format types pytest pythons docs bench bench-gpu fuzz lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## the environment in .venv, exact versions from requirements.lock

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "lemlight needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv --clear $(VENV); } || \
	  { echo "python3 cannot make a virtual environment: apt-get install python3-venv, then again"; exit 1; }
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED) ## train LEM on synthetic mammograms and show what came out (no GPU, no download; minutes)
	$(BIN)/python -m lemlight.train recipe=demo

test: lint types pytest ## every check: lint, types, tests

pytest: $(INSTALLED) ## the tests alone
	$(TEST_ENV) $(BIN)/python -m pytest --numprocesses 2 --dist worksteal --quiet

pythons: ## a part of the tests on each of Python 3.12 and 3.13 that is at hand (needs uv)
	@for version in 3.12 3.13; do \
	  uv python find --no-python-downloads $$version >/dev/null 2>&1 || { echo "no Python $$version here: skipped"; continue; }; \
	  at=$(VENV)/python$$version; echo "Python $$version"; \
	  uv venv --quiet --clear --python $$version $$at && \
	  uv pip install --quiet --python $$at --require-hashes --requirement requirements.lock && \
	  uv pip install --quiet --python $$at --no-deps --no-build-isolation --editable . && \
	  $(TEST_ENV) $$at/bin/python -m pytest --quiet $(PART) || exit 1; \
	done

lint: $(INSTALLED) ## style and format, nothing changed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED) ## mend style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED) ## strict types of src
	$(BIN)/mypy

docs: $(INSTALLED) ## the documentation as a site, into site/
	$(BIN)/python -m mkdocs build --strict --quiet

bench: $(INSTALLED) ## the speed ratios of the README, measured side by side
	$(BIN)/python -m tests.bench

bench-gpu: $(INSTALLED) ## training, maps and localize on a GPU, in at most eight minutes
	$(BIN)/python -m tests.bench.gpu

fuzz: $(INSTALLED) ## damaged files of every kind, read under limits (seconds; make fuzz HOURS=2)
	$(TEST_ENV) $(BIN)/python -m tests.fuzz --hours $(or $(HOURS),0.005)

lock: ## requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url --universal \
	  --python-version 3.11 --quiet --output-file requirements.lock

clean: ## the environment and everything that a run left here
	rm -rf $(VENV) data outputs multirun site dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
