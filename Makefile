# Every job sets up what it needs: a virtual environment in the clone, with the tested versions.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests are shared out among processes, as many as there are cores, but not dozens.
SHARED := -n auto --maxprocesses 8

.DEFAULT_GOAL := help
.PHONY: help demo test check docs format clean

help: ## show these lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## train RL^2 on bandits, print the numbers, draw the picture
	$(BIN)/python experiments/demo.py

test: $(READY) ## all tests except those that train for many minutes
	$(BIN)/python -m pytest $(SHARED) -m "not slow"

check: $(READY) ## before every commit: format, lint, types, quick tests, documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(SHARED) -m "not slow and not learning"
	$(MAKE) docs

docs: $(READY) ## the documentation site, in build/docs, tutorials executed; whatever looks wrong is an error
	$(BIN)/sphinx-build -q -n -W --keep-going -c docs -d build/doctrees . build/docs
	@echo "Open build/docs/index.html"

format: $(READY) ## put the sources into the agreed form
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

clean: ## remove the virtual environment, caches and builds; keep runs/
	rm -rf $(VENV) build dist docs/generated *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find metarl envs agents docs experiments tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Repeated only when the dependencies or the compiled sources change. Twice quiet: errors are shown,
# warnings are not.
$(READY): pyproject.toml constraints.txt $(wildcard metarl/native/*.h metarl/native/*.cpp)
	@command -v $(PYTHON) > /dev/null || { \
	  echo "There is no '$(PYTHON)' here. Install Python 3.11 or newer, or name one:" \
	    "make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "metarl needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	    "Name a newer one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV), once; this takes minutes, most of them for torch."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev]'
	@touch $@
