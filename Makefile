# Everything starts here. `make help` lists it; the work itself is in `python -m tollgate`.

PYTHON ?= $(shell for python in python3.13 python3.12 python3.14 python3.11 python3 /usr/bin/python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
UV_VERSION := 0.13.8
# A checkout that cannot be written keeps its environment beside its data.
VENV := $(shell test -w . -o -x .venv/bin/python && echo .venv || echo "$(TOLLGATE_DATA_DIR)/venv")
SPACE := $() $()
RULE := $(subst $(SPACE),\ ,$(VENV))
UV := UV_SYSTEM_CERTS=true UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT="$(VENV)" "$(VENV)/bin/uv"
SYNC := $(UV) sync --quiet --frozen --inexact --group embedded --group terminal --python "$(VENV)/bin/python"
NODE_IS_HERE := $(shell node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' 2>/dev/null && echo yes)
NODE_GROUP := $(if $(NODE_IS_HERE),,--group node)
PYTEST := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" "$(VENV)/bin/pytest" -n auto --dist worksteal
NPM := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npm
INSTALL := ci --loglevel=error --no-fund --no-audit
SITE := "$(VENV)/bin/zensical" build --clean --strict
# Shows what a command printed only when it fails.
quietly = printed=$$({ $(1); } 2>&1) || { printf '%s\n' "$$printed" >&2; exit 1; }

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help up stack migrate-docker serve migrate seed-key sweep audit test test-all test-engines check lint format docs exports migration console screenshots clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

up: $(RULE)/.run $(if $(LOCAL),$(RULE)/.agent) ## Start Tollgate here, with a database of its own and a demo key (LOCAL=1: and models)
	@"$(VENV)/bin/python" -m tollgate demo $(if $(LOCAL),--local)

stack: ## Start everything in Docker: API, nginx, Postgres, Redis, Prometheus, Grafana, pgAdmin
	@deploy/stack.sh

migrate-docker: ## Bring the stack's database up to date, with its API stopped or not
	@docker compose --project-directory deploy run --rm --build prepare python -m tollgate migrate

serve: $(RULE)/.run ## Serve with the settings of the environment
	@"$(VENV)/bin/python" -m tollgate serve

migrate: $(RULE)/.run ## Bring the database up to date (ENV_FILE=.env.local picks the settings)
	@"$(VENV)/bin/python" -m tollgate migrate

seed-key: $(RULE)/.run ## Create an admin key: make seed-key API_KEY=<value>
	@test -n "$(API_KEY)" || { echo "tollgate: say which: make seed-key API_KEY=<at least 20 characters>" >&2; exit 2; }
	@"$(VENV)/bin/python" -m tollgate seed-key "$(API_KEY)"

sweep: $(RULE)/.run ## End the holds of requests that nobody ended, at what they cost
	@"$(VENV)/bin/python" -m tollgate sweep

audit: $(RULE)/.run ## Prove the books from the tables alone
	@"$(VENV)/bin/python" -m tollgate audit

test: $(RULE)/.dev tests/npm/node_modules/.ready ## Run the tests but the slow ones (ARGS="-k balance" for some)
	@$(PYTEST) -m "not slow" $(ARGS)
	@echo 'The slow tests were left out: `make test-all` runs them too.'

test-all: $(RULE)/.dev tests/npm/node_modules/.ready console/node_modules/.ready ## Run all tests, as CI does and as you do before a release
	@$(PYTEST) $(ARGS)

test-engines: $(RULE)/.dev tests/npm/node_modules/.ready ## Run official clients before real vLLM, llama.cpp, whisper and speech: installs 4 GB at first
	@$(SYNC) --group dev --group engines
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" "$(VENV)/bin/python" tools/install_engines.py vllm whisper speech
	@ENGINES=llamacpp,vllm PATH="$(CURDIR)/$(VENV)/bin:$$PATH" "$(VENV)/bin/pytest" tests/engines $(ARGS)

check: lint test ## Everything before a commit: lint, test

lint: $(RULE)/.dev console/node_modules/.ready ## Format, lint, types, floors, stale exports, the OpenAPI document, links of the pages
	@"$(VENV)/bin/ruff" format --check --quiet .
	@"$(VENV)/bin/ruff" check --quiet .
	@"$(VENV)/bin/mypy"
	@"$(VENV)/bin/lint-imports" --no-logo
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" "$(VENV)/bin/python" tools/exports.py --check
	@$(call quietly,"$(VENV)/bin/openapi-spec-validator" src/tollgate/openapi.json)
	@$(call quietly,$(NPM) --prefix console run check)
	@$(call quietly,$(SITE))

docs: $(RULE)/.dev ## Build the pages of docs/ as a site, in dist/site; broken links fail
	@$(SITE)

format: $(RULE)/.dev console/node_modules/.ready ## Format the code and mend what the linter can
	@"$(VENV)/bin/ruff" check --fix --quiet .
	@"$(VENV)/bin/ruff" format --quiet .
	@$(call quietly,$(NPM) --prefix console run format)

exports: $(RULE)/.dev console/node_modules/.ready ## Write the files made from others: .env.example, requirements.txt, the reference
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" "$(VENV)/bin/python" tools/exports.py

console: console/node_modules/.ready ## Build the web pages from console/ into src/tollgate/console/files
	@$(NPM) --prefix console run --silent build

screenshots: $(RULE)/.dev console ## Take pictures of the web pages into .cache/screenshots (ARGS="answered-360" for some)
	@PYTHONPATH=tests "$(VENV)/bin/python" tools/screenshots.py $(ARGS)

migration: $(RULE)/.dev ## Write a step from supabase/schemas: make migration NAME=refunds
	@PYTHONPATH=tests "$(VENV)/bin/python" tools/migration.py "$(NAME)"

clean: ## Remove what was installed and built; keeps the data in .tollgate
	@rm -rf "$(VENV)" tests/npm/node_modules console/node_modules .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(RULE)/bin/uv:
	@test -n "$(PYTHON)" || { echo "tollgate: no Python 3.11 or newer was found: install one, or name it with PYTHON=<path>" >&2; exit 1; }
	@test "$(VENV)" != /venv || { echo "tollgate: this folder is read-only: set TOLLGATE_DATA_DIR to a folder for the data and the environment" >&2; exit 1; }
	@echo "Making $(VENV) with $$("$(PYTHON)" --version) ..."
	@test "$(VENV)" = .venv || (umask 077 && mkdir -p "$(TOLLGATE_DATA_DIR)")
	@$(call quietly,"$(PYTHON)" -m venv "$(VENV)" && "$(VENV)/bin/python" -m pip install --quiet uv==$(UV_VERSION))

$(RULE)/.run: $(RULE)/bin/uv uv.lock pyproject.toml
	@$(call quietly,$(SYNC))
	@touch "$@"

$(RULE)/.agent: $(RULE)/.run
	@$(call quietly,$(SYNC) --extra agent)
	@touch "$@"

$(RULE)/.dev: $(RULE)/bin/uv uv.lock pyproject.toml
	@test -w . || { echo "tollgate: the tests write into this folder, and it is read-only: copy it elsewhere" >&2; exit 1; }
	@$(call quietly,$(SYNC) --group dev --group docs $(NODE_GROUP))
	@touch "$@" "$(VENV)/.run"

%/node_modules/.ready: %/package-lock.json $(RULE)/.dev
	@$(call quietly,$(NPM) --prefix $* $(INSTALL))
	@touch $@
