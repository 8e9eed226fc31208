# The project's chores. Each target makes what it needs first: the environment is installed once, and again when a
# requirements file changes.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
BENCHMARKS := $(filter-out performance,$(basename $(notdir $(shell grep -l '^def main' benchmarks/*.py))))
DEMO_BASE := from core.models.demo_base import ensure_base; from core.settings import load_settings; \
	print("Demo base model:", ensure_base(load_settings()))

.DEFAULT_GOAL := help
.PHONY: help run demo demo-base test check format hooks bench

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /: /' | awk -F': ' '{printf "  make %-7s %s\n", $$1, $$2}'

run: $(INSTALLED) demo-base ## open the dashboard
	$(BIN)/python app.py

demo: $(INSTALLED) ## run the built-in pool in the terminal, start to finish
	$(BIN)/python -m core demo

# Tests run side by side on one thread each, then those of the real models with all threads.
test: check demo-base ## all checks and all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not demo"
	$(BIN)/python -m pytest -m demo

check: $(INSTALLED_DEV) ## lint, format, types and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED_DEV) ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: $(INSTALLED_DEV) ## check before every commit
	$(BIN)/pre-commit install

bench: $(INSTALLED) ## run every benchmark but the paper study (hours); each prints JSON
	@set -e; for name in $(BENCHMARKS); do echo "benchmarks.$$name" >&2; $(BIN)/python -m benchmarks.$$name --json; done

# The dashboard opens, and most tests pass, without the demo's base model: a failure is shown and passed over.
demo-base: $(INSTALLED)
	-@$(BIN)/python -c '$(DEMO_BASE)'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): requirements.txt | $(BIN)/python
	$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(INSTALLED_DEV): requirements-dev.txt $(INSTALLED)
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@
