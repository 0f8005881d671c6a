# `make` lists the targets. Everything is installed into .venv, once, at the versions in constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
# Test processes: two at one thread each (tests/conftest.py) beat one at two threads on a two-core machine.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test slow lint format bench mutants attack clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.dev ## create .venv with what development needs

demo: $(VENV)/.runtime ## train, sample, measure and report on handwritten digits: some 3 minutes on two cores
	$(BIN)/trilemma demo

test: $(VENV)/.dev ## the test suite, less what is marked slow
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

slow: $(VENV)/.dev ## the tests marked slow: minutes each
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev ## style, types, and who may import whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## put the code into its style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.dev ## every benchmark in benchmarks/, one after the other
	@set -e; for file in benchmarks/bench_*.py; do \
	    echo "== $$file"; $(BIN)/python "$$file"; \
	done

mutants: $(VENV)/.dev ## break the code in small ways: do the tests notice? some 10 minutes
	$(BIN)/python tools/mutants.py

attack: $(VENV)/.dev ## kills, full disks, hostile files, settings and command lines: ten minutes
	$(BIN)/python tools/attack

clean: ## remove .venv, caches and build results; runs/ stays
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: an install is repeated only when it broke off, or when what it was made from has changed.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("trilemma needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11 ..." \
	    % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) -e '.[dev]'
	@touch $@
