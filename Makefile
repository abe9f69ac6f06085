# `make demo` and `make test` need Debian's python3, git and make (or macOS's); the rest they install into .venv,
# and with root or a sudo that asks no password, RabbitMQ and python3-venv with apt-get.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test faults mutants fuzz audit check bench bench-sending bench-import docs picture lock clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## Tell the whole story on real services: too few codes, Interrupted, resume, 1,000 mails
	$(BIN)/coupons demo

test: $(VENV)/installed-dev ## Run all tests on real services; COUPONS_TEST_SERVICES=docker|local|address chooses which
	@tests/run_parallel $(BIN)/python

faults: $(VENV)/installed-dev ## Prove it under every fault, in more than half an hour; write the table of docs/explanation/reliability.md
	@tests/faults/run_long $(BIN)/python docs/explanation/reliability.md

mutants: $(VENV)/installed-dev ## Remove each constraint, fence and intent row in turn: some test must fail for each
	$(BIN)/python -m tests.mutants

fuzz: $(VENV)/installed-dev ## Feed whatever comes from outside what nobody thought of, for half an hour
	COUPONS_FUZZ_EXAMPLES=$${COUPONS_FUZZ_EXAMPLES:-6000} $(BIN)/python -m pytest -q --durations=0 tests/fuzz

audit: ## Ask the package index whether a locked version is known to be vulnerable; it must answer about each
	$(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv-audit/bin/pip-audit --strict --disable-pip --no-deps -r requirements.lock -r requirements-dev.lock

check: $(VENV)/installed-dev ## Check format, lint, types and who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-dev ## Measure everything; write bench/results.json and docs/explanation/performance.md
	$(BIN)/python -m bench

bench-sending: $(VENV)/installed-dev ## Measure only how fast sending is; ONLY=engine,latency only parts of that
	$(BIN)/python -m bench sending $(if $(ONLY),--only $(ONLY))

bench-import: $(VENV)/installed-dev ## Measure only how fast importing is; ONLY=codes,large,recipients only parts of that
	$(BIN)/python -m bench importing $(if $(ONLY),--only $(ONLY))

docs: $(VENV)/installed-dev ## Write the generated reference pages and build the site into .site/
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python docs/check_site.py .site

picture: $(VENV)/installed-dev ## Write docs/demo.svg, the terminal of `make demo`
	$(BIN)/python docs/picture.py

lock: $(VENV)/installed-dev ## Write the lock files anew, with the newest versions that pyproject.toml allows
	$(PIP) uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url \
	  --extra demo pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url \
	  --extra demo --group dev --constraint requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## Remove all that was made here, the environment too
	rm -rf $(VENV) .venv-audit .demo .test .bench .site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Exactly the locked versions, once: again only when a lock or pyproject.toml is newer.
$(VENV)/installed: requirements.lock pyproject.toml | $(BIN)/pip
	$(PIP) -r requirements.lock
	$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.lock
	$(PIP) -r requirements-dev.lock
	@touch $@

# Debian keeps ensurepip in a package of its own.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=python3.x …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  root=""; [ "$$(id -u)" = 0 ] || root="sudo -n"; \
	  echo "installing python3-venv" >&2; \
	  $$root apt-get update -qq && $$root apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; \
	} || { echo "Python's venv is missing: sudo apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
