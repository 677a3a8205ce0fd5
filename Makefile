SHELL := /bin/sh
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv with the development tools and build the contracts
	@deploy/setup/setup.sh --dev

.PHONY: help setup
