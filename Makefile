SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTHON := $(BIN)/python
RUNNER := $(PYTHON) -m tests.runner
# Both are quick when nothing changed.
DEV := deploy/setup/setup.sh --dev
TESTS := deploy/setup/setup.sh --tests

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## Start the grid on this machine, run the quickstart job, keep serving
	@deploy/setup/setup.sh --runtime
	@exec $(PYTHON) -m deploy.up

setup: ## Make .venv with the development tools and build the contracts
	@$(DEV)

proto: ## Compile protos/ into libs/pb
	@$(DEV)

check: ## Format, lint, types, imports, contracts, unit tests (under 2 minutes)
	@$(DEV)
	@$(RUNNER) check

test: ## Everything: the check and every other suite
	@$(TESTS)
	@$(RUNNER) test

unit: ## Unit and architecture tests
	@$(DEV)
	@$(PYTHON) -m pytest tests/unit tests/architecture -n logical

contract: ## Suites that every adapter of a port must pass
	@$(DEV)
	@$(RUNNER) suite contract

rest: ## The public API, request by request
	@$(DEV)
	@$(RUNNER) suite rest

scenarios: ## Whole jobs through the whole grid
	@$(TESTS)
	@$(RUNNER) suite scenarios

chaos: ## Kills and restarts in the middle of jobs
	@$(TESTS)
	@$(RUNNER) suite chaos

bench: ## Measure the grid against bare programs on this machine
	@$(DEV)
	@$(PYTHON) -m tests.bench

fmt: ## Format Python and protos in place
	@$(DEV)
	@$(BIN)/ruff check --fix --exit-zero --quiet .
	@$(BIN)/ruff format .
	@$(BIN)/buf format -w protos

lint: ## ruff, import rules, buf
	@$(DEV)
	@$(BIN)/ruff check .
	@$(PYTHON) -m tests.architecture.import_rules
	@$(BIN)/buf lint build/protos/grid.binpb --path junglegrid

typecheck: ## mypy --strict
	@$(DEV)
	@$(BIN)/mypy libs services gateway deploy tests

proto-accept: ## Make the present contracts the baseline: NOTE="what changed and why"
	@$(DEV)
	@$(PYTHON) deploy/proto/baseline.py accept --note "$${NOTE:-}"

openapi: ## Write the public API's OpenAPI document to build/openapi.json
	@$(DEV)
	@$(PYTHON) -m deploy.openapi > build/openapi.json
	@echo build/openapi.json

lock: ## Pin requirements/*.in again, with hashes
	@$(DEV)
	@deploy/setup/lock.sh

pre-commit: ## Run the fast checks on every file (HOOK=1: at every commit from now on)
	@$(DEV)
	@$(BIN)/pre-commit $(if $(HOOK),install,run --all-files)

clean: ## Remove what was built; keeps .venv and the grid's home
	@rm -rf build libs/pb dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find libs services gateway deploy tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: help up setup proto check test unit contract rest scenarios chaos bench fmt lint typecheck \
	proto-accept openapi lock pre-commit clean
