# Everything a checkout can do. `make demo` and `make test` need only Python 3.11 or later, make and PyPI: the first run
# makes .venv from the locked requirements, later runs use it.

PYTHON ?= python3
JOBS ?= 2
TESTS ?= tests
SEEDS ?= 1000
SEED ?=
ARGS ?=

DEBIAN := pgbouncer chromium prometheus
SHORT = --ignore=tests/benchmarks --ignore=tests/operations --ignore=tests/system -m 'not long'
LONG = --ignore=tests/benchmarks --ignore=tests/system -m long
XDIST = -n $(JOBS) --dist loadfile --no-loadscope-reorder
VENV := .venv
BIN := $(VENV)/bin
BOOTSTRAPPED := $(VENV)/.bootstrapped
INSTALLED := $(VENV)/.installed
UNFINISHED := $(VENV)/.unfinished

# uv's cache is shared between checkouts where the home folder can be written, and kept in .venv elsewhere.
USE_CACHE = cache="$${UV_CACHE_DIR:-$${XDG_CACHE_HOME:-$${HOME:-/dev/null}/.cache}/uv}"; \
	mkdir -p "$$cache" 2>/dev/null && test -w "$$cache" || cache="$(VENV)/.uv-cache"; \
	export UV_CACHE_DIR="$$cache";

# Without bytecode each of the many processes of a test, or of the demo, compiles again what it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo up migrate test-fast test test-system record simulate chaos bench test-large bench-pages check docs pages lint spelling words types imports format vendor lock release clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo '  PYTHON=python3.12 names the Python for .venv; ARGS="..." goes to demo, up, the tests, simulate, chaos and bench.'

demo: $(INSTALLED) ## Run the whole life of some calls: real servers, a real local model, no API key
	$(BIN)/callgate demo $(ARGS)

up: $(INSTALLED) ## Run servers, worker and dashboard for development, until Ctrl-C
	$(BIN)/callgate up $(ARGS)

migrate: $(INSTALLED) ## Bring the database of CALLGATE_DATABASE_URL to the newest schema
	$(BIN)/callgate migrate $(ARGS)

test-fast: $(INSTALLED) ## Run rules and memory ledger in under 90 s; leaves out Postgres, Valkey, Celery, simulation and processes
	$(BIN)/python -m pytest tests/unit tests/contract -m 'not servers and not long' -k 'not (contract and postgres)' $(XDIST) $(ARGS)

test: $(INSTALLED) ## Run the tests of every promise, in 8 minutes on two cores; they need only PyPI
	$(BIN)/python -m pytest $(TESTS) $(if $(filter tests,$(TESTS)),$(SHORT)) $(XDIST) $(ARGS)

test-system: $(INSTALLED) ## Run what operators see, the demo, the longest tests, and those that need Debian packages (as root it installs them); at most 45 minutes
	@missing=; for package in $(DEBIAN); do dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; done; \
	test -z "$$missing" || { \
		test "$$(id -u)" = 0 || { echo "missing: apt-get install$$missing" >&2; exit 1; }; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
			apt-get -qq install --no-install-recommends --yes $$missing; }
	$(BIN)/python -m pytest tests $(LONG) $(XDIST) $(ARGS)
	$(BIN)/python -m pytest tests/system $(ARGS)

record: $(INSTALLED) ## Record a real provider: PROVIDER=groq MODEL=..., with its key in the environment; costs less than a cent
	$(BIN)/python -m tests.support.record --provider "$(PROVIDER)" --model "$(MODEL)" \
		$(if $(BASE_URL),--base-url "$(BASE_URL)") $(if $(PROTOCOL),--protocol "$(PROTOCOL)") $(ARGS)

simulate: $(INSTALLED) ## Run SEEDS=1000 simulated lives with faults; SEED=123 runs that one, and shows its trace if it fails
	$(BIN)/python -m tests.simulation.run $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

chaos: $(INSTALLED) ## Kill, stop, wipe and fill real servers under load, and count what was lost; up to twenty minutes
	$(BIN)/python -m tests.chaos $(ARGS)

bench: $(INSTALLED) ## Measure callgate beside the bare Celery task and a naive chain; needs an idle machine
	$(BIN)/python -m tests.benchmarks.bench $(ARGS)

test-large: $(INSTALLED) ## Seed ten million rows of the log, and measure costs, audit, lists and the hot path; by hand, it takes minutes
	$(BIN)/python -m tests.benchmarks.large $(ARGS)

bench-pages: $(INSTALLED) ## Measure each page of Flower on ten million rows of the log, and workers beside an open page; by hand
	$(BIN)/python -m tests.benchmarks.pages $(ARGS)

check: lint spelling words types imports docs ## Run every check that is not a test

lint: $(INSTALLED) ## Check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

spelling: $(INSTALLED) ## Check the spelling of code and prose
	$(BIN)/codespell

words: $(INSTALLED) ## Look for the words that docs/glossary.md bans
	$(BIN)/python -m tests.support.banned_words

types: $(INSTALLED) ## Check the types
	$(BIN)/python -m mypy callgate worker tasks config devkit examples tests

imports: $(INSTALLED) ## Check that imports point one way
	$(BIN)/lint-imports

docs: $(INSTALLED) ## Build the site of docs/ into .site/html; a broken link is an error
	$(BIN)/python -m devkit.docs.site

pages: $(INSTALLED) ## Write the pages of docs/reference, the map of docs/ and llms.txt again from the code
	$(BIN)/python -m devkit.docs

format: $(INSTALLED) ## Format the code, and repair what ruff can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

vendor: $(INSTALLED) ## Copy the scripts of others (htmx, uPlot, axe-core) from npm, after a change of devkit/vendor.py
	$(BIN)/python -m devkit.vendor

lock: $(BOOTSTRAPPED) ## Lock the requirements after a change of pyproject.toml; ARGS=--upgrade takes the newest
	@$(USE_CACHE) \
	compile="$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header"; \
	$$compile -q --all-extras --group worker --group embedded --group demo --group dev --group docs -o requirements/dev.txt $(ARGS) && \
	$$compile -q --all-extras --group worker -c requirements/dev.txt -o requirements/production.txt $(ARGS) && \
	$$compile -q -c requirements/dev.txt -o requirements/client.txt $(ARGS)

release: $(INSTALLED) ## Build both distributions and the notes of the version into dist/; nothing is published
	$(BIN)/python -m devkit.release

clean: ## Remove .venv and the files of tools, but no data (.callgate)
	rm -rf $(VENV) .site dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An interrupted install can leave a package incomplete: then every package is installed again.
$(INSTALLED): $(BOOTSTRAPPED) requirements/dev.txt pyproject.toml callgate/version.py
	@again=; if test -e $(UNFINISHED); then again=--reinstall; fi; touch $(UNFINISHED); \
	$(USE_CACHE) \
	$(BIN)/uv pip sync --python $(BIN)/python --require-hashes --compile-bytecode $$again requirements/dev.txt && \
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation --editable . && \
	mv $(UNFINISHED) $@ && touch $@

# uv comes from the same lock as everything else, installed by Python's own pip.
$(BOOTSTRAPPED):
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'callgate needs Python 3.11 or later: make PYTHON=python3.12 ...' >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo 'this Python cannot make virtual environments (on Debian: apt install python3-venv)' >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)
	@awk '/^[a-z]/ {uv = /^uv==/} uv' requirements/dev.txt > $(VENV)/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(VENV)/uv.txt
	@touch $@
