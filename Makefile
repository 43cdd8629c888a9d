# Everything starts here. `make help` lists it; the work itself is in `python -m tollgate`.

PYTHON ?= $(shell for python in python3.13 python3.12 python3.14 python3.11 python3 /usr/bin/python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
UV_VERSION := 0.13.8
VENV := .venv
UV := UV_SYSTEM_CERTS=true UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=$(VENV) $(VENV)/bin/uv
SYNC := $(UV) sync --quiet --frozen --inexact --group embedded --group terminal --python $(VENV)/bin/python
NODE_IS_HERE := $(shell node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' 2>/dev/null && echo yes)
NODE_GROUP := $(if $(NODE_IS_HERE),,--group node)
NPM := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npm --prefix tests/npm

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help up stack serve migrate seed-key test check format exports migration clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

up: $(VENV)/.run ## Start Tollgate here, with a database of its own and a demo key
	@$(VENV)/bin/python -m tollgate demo

stack: ## Start everything in Docker: API, nginx, Postgres, Redis, Prometheus, Grafana, pgAdmin
	@deploy/stack.sh

serve: $(VENV)/.run ## Serve with the settings of the environment
	@$(VENV)/bin/python -m tollgate serve

migrate: $(VENV)/.run ## Bring the database up to date (ENV_FILE=.env.local picks the settings)
	@$(VENV)/bin/python -m tollgate migrate

seed-key: $(VENV)/.run ## Create an admin key: make seed-key API_KEY=<value>
	@test -n "$(API_KEY)" || { echo "tollgate: say which: make seed-key API_KEY=<at least 20 characters>" >&2; exit 2; }
	@$(VENV)/bin/python -m tollgate seed-key "$(API_KEY)"

test: $(VENV)/.dev tests/npm/node_modules/.ready ## Run all tests (ARGS="-k balance" for some)
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/pytest -n auto --dist worksteal $(ARGS)

check: $(VENV)/.dev ## Format, lint, types, floors, stale exports, and all tests
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/python tools/exports.py --check
	@$(MAKE) --no-print-directory test

format: $(VENV)/.dev ## Format the code and mend what the linter can
	@$(VENV)/bin/ruff check --fix --quiet .
	@$(VENV)/bin/ruff format --quiet .

exports: $(VENV)/.dev ## Write the files made from others: .env.example, requirements.txt, the reference
	@$(VENV)/bin/python tools/exports.py

migration: $(VENV)/.dev ## Write a step from supabase/schemas: make migration NAME=refunds
	@PYTHONPATH=tests $(VENV)/bin/python tools/migration.py "$(NAME)"

clean: ## Remove what was installed and built; keeps the data in .tollgate
	@rm -rf $(VENV) tests/npm/node_modules .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/bin/uv:
	@test -n "$(PYTHON)" || { echo "tollgate: Python 3.11 or newer is needed, and none was found" >&2; exit 1; }
	@test -w . || { echo "tollgate: this folder is read-only, and its environment and data belong in it" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.run: $(VENV)/bin/uv uv.lock pyproject.toml
	@$(SYNC)
	@touch $@

$(VENV)/.dev: $(VENV)/bin/uv uv.lock pyproject.toml
	@$(SYNC) --group dev $(NODE_GROUP)
	@touch $@ $(VENV)/.run

tests/npm/node_modules/.ready: $(VENV)/.dev tests/npm/package-lock.json
	@$(NPM) ci --loglevel=error --no-fund --no-audit > /dev/null
	@touch $@
