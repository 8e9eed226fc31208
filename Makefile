# The project's commands. Each target first makes what it needs: the environment is installed once, and again when a
# requirements file or the lock changes.
PYTHON ?= python3.11
# Of the ZeroGPU profile: its machines have 3.12.
PYTHON312 ?= python3.12
# Versions of indirect dependencies. `make LOCK= run` installs the newest ones that the direct pins allow instead.
LOCK ?= -c requirements.lock
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
# What `make test` measures; `make COVER= test` measures nothing and saves a third of the processor time.
COVER ?= --cov=core --cov=safemerge_ui --cov-report=
LEAST_COVERAGE := 95
BENCHMARKS := $(filter-out performance,$(basename $(notdir $(shell grep -l '^def main' benchmarks/*.py))))
# The second environment, in which saved merges are loaded with transformers 4.
VENV4 := .venv-transformers4
INSTALLED4 := $(VENV4)/.installed
VENV_AUDIT := .venv-audit
DEMO_BASE := from core.models.demo_base import ensure_base; from core.settings import load_settings; \
	print("Demo base model:", ensure_base(load_settings()))

.DEFAULT_GOAL := help
.PHONY: help run demo demo-base test test-transformers4 check space-check coverage reference format audit hooks bench lock

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /: /' | awk -F': ' '{printf "  make %-9s %s\n", $$1, $$2}'

run: $(INSTALLED) demo-base ## open the dashboard
	$(BIN)/python app.py

demo: $(INSTALLED) ## run the demo pool in the terminal, start to finish
	$(BIN)/python -m core demo

# First all tests but those of the real models, in parallel with one thread each, with their coverage. Then the tests of
# the real models, one after another with all threads.
test: check demo-base ## run all checks and all tests, and show the coverage
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not demo and not transformers4" $(COVER)
	@$(if $(COVER),$(MAKE) --no-print-directory coverage)
	$(BIN)/python -m pytest -m demo

test-transformers4: $(INSTALLED_DEV) $(INSTALLED4) ## reload saved merges with transformers 4, in an environment of its own
	$(BIN)/python -m pytest -m transformers4

check: $(INSTALLED_DEV) ## lint, format, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Two environments of several gigabytes are built in .venv-space; `make SPACE=space space-check` checks one of the two.
space-check: $(INSTALLED_DEV) ## start the app as a Space and as a ZeroGPU Space in clean environments, and open every tab
	$(BIN)/python .ci/space_check.py $(SPACE) --python311 $(PYTHON) --python312 $(PYTHON312)

coverage: ## show the coverage of the last `make test`, per package
	@$(BIN)/coverage json -q -o - | $(BIN)/python .ci/coverage.py $(LEAST_COVERAGE)

reference: $(INSTALLED) ## write docs/reference/spec.md and events.md from the code
	$(BIN)/python -m core reference --write

format: $(INSTALLED_DEV) ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# pip-audit has an environment of its own, so that its dependencies do not meet ours; a failed installation is reported by
# the audit and is no failure.
audit: $(INSTALLED) ## look for known vulnerabilities, secrets and licenses (weekly, and before a release)
	-@test -x $(VENV_AUDIT)/bin/pip-audit || ($(PYTHON) -m venv $(VENV_AUDIT) && \
		$(VENV_AUDIT)/bin/python -m pip install --disable-pip-version-check --quiet "pip-audit>=2.7,<3")
	$(BIN)/python .ci/audit.py requirements.lock $(VENV_AUDIT)/bin/python

hooks: $(INSTALLED_DEV) ## run the checks before every commit
	$(BIN)/pre-commit install

# benchmarks.gpu is left out too: without a GPU only `--tiny` is fast, and it measures nothing.
bench: $(INSTALLED) ## run every benchmark except the paper study (hours) and gpu; each prints JSON
	@set -e; for name in $(BENCHMARKS); do echo "benchmarks.$$name" >&2; $(BIN)/python -m benchmarks.$$name --json; done

lock: $(BIN)/python ## resolve all dependencies again and write requirements.lock; installs nothing
	$(PIP_INSTALL) --quiet --dry-run --ignore-installed --report $(VENV)/lock.json -r requirements-dev.txt
	$(BIN)/python .ci/lock.py < $(VENV)/lock.json > requirements.lock

# The dashboard opens, and most tests pass, without the demo's base model: a failure is shown and ignored.
demo-base: $(INSTALLED)
	-@$(BIN)/python -c '$(DEMO_BASE)'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(INSTALLED4): requirements.txt
	$(PYTHON) -m venv $(VENV4)
	$(VENV4)/bin/python -m pip install --disable-pip-version-check transformers==4.51.3 $$(grep '^torch==' requirements.txt)
	@touch $@

$(INSTALLED): requirements.txt requirements.lock | $(BIN)/python
	$(PIP_INSTALL) -r requirements.txt $(LOCK)
	@touch $@

$(INSTALLED_DEV): requirements-dev.txt $(INSTALLED)
	$(PIP_INSTALL) -r requirements-dev.txt $(LOCK)
	@touch $@
