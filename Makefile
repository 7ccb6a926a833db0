# pyswarm: `make demo` shows it, `make test` proves it, `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyswarm compose manager node_agent tests proto benchmarks

# Without compiled files every worker of the tests spends four seconds on rewriting assertions.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo demo-down test test-fast check static format lint types contracts proto proto-check bench bench-scale bench-recovery bench-lab sim chaos clean deps deps-dev

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

deps:
	@scripts/install-deps.sh --demo

deps-dev:
	@scripts/install-deps.sh --dev

.venv/installed: pyproject.toml
	@echo "installing pyswarm into .venv"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

.venv/installed-dev: pyproject.toml
	@echo "installing pyswarm and its tools into .venv"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@ .venv/installed

demo: deps .venv/installed ## Start a one-node cluster, deploy the shop, send it a request
	@scripts/demo.sh up

demo-down: ## Take the demo's cluster down and leave nothing behind
	@scripts/demo.sh down

# Half as many again as there are cores: some tests wait.
WORKERS := $(shell echo $$(( $$(nproc) * 3 / 2 )))
FAST := not root and not e2e and not sim and not differential

test: deps-dev .venv/installed-dev ## All tests, those with real containers too (as root)
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "$(FAST)" $(ARGS)
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "differential and not root and not e2e" $(ARGS)
	$(BIN)/python -m pytest -m "root or e2e or sim" $(ARGS)

test-fast: .venv/installed-dev ## The tests that need no root, in under 20 seconds
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "$(FAST)" $(ARGS)

check: static test-fast ## Format, lint, types, import contracts, protos up to date, fast tests

static: .venv/installed-dev ## The same without the tests
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check

format: .venv/installed-dev ## Format the code
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

proto: .venv/installed-dev ## Bring proto/ and the compiled messages in step with the dataclasses
	$(BIN)/python proto/generate.py

sim: .venv/installed-dev ## Random histories of a simulated cluster (SEEDS=100000 for a long hunt)
	$(BIN)/python -m tests.sim --seeds $(or $(SEEDS),2000)

chaos: deps-dev .venv/installed-dev ## Faults of every kind on a real cluster, and the judgement (SEED=7, CHAOS=1h; as root)
	$(BIN)/python -m tests.chaos --seed $(or $(SEED),1)

bench: deps-dev .venv/installed-dev ## Cost of a task beside the bare runtime, and what an idle node uses
	$(BIN)/python benchmarks/task.py

bench-scale: deps-dev .venv/installed-dev ## A thousand simulated nodes: decisions, memory, reaction (NODES, TASKS; as root)
	$(BIN)/python benchmarks/scale.py --nodes $(or $(NODES),1000) --tasks $(or $(TASKS),30000)

bench-recovery: deps-dev .venv/installed-dev ## Deploys, scaling, deaths of every kind, timed; ARGS=--peer beside a real Docker Swarm (as root)
	$(BIN)/python benchmarks/recovery.py $(ARGS)

bench-lab: deps-dev .venv/installed-dev ## Fifty light nodes and three managers in a lab, a stack of 500 tasks: what it costs (as root)
	$(BIN)/python benchmarks/lab50.py $(ARGS)

clean: ## Remove what builds and tests leave in the checkout
	rm -rf build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
