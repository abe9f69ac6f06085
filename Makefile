# `make demo` and `make test` need Debian's python3, git and make (or macOS's). Everything else is installed into .venv;
# as root or with passwordless sudo, RabbitMQ and python3-venv are installed with apt-get.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test faults estimates mutants fuzz audit check bench bench-sending bench-import docs picture lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## Run the main workflow on real services: too few codes, interrupted, resumed, 1,000 mails
	$(BIN)/coupons demo

test: $(VENV)/installed-dev ## Run all tests on real services (COUPONS_TEST_SERVICES selects them: docker, local or address)
	@tests/run_parallel $(BIN)/python

faults: $(VENV)/installed-dev ## Run the fault-injection suite (30+ min); write the table of docs/explanation/reliability.md
	@tests/faults/run_long $(BIN)/python docs/explanation/reliability.md

estimates: $(VENV)/installed-dev ## Compare each shown rate and time left with the real ones, for two minutes per sendout (15 min)
	COUPONS_ESTIMATE_SECONDS=120 $(BIN)/python -m pytest -q -s tests/acceptance/test_shown_numbers.py

mutants: $(VENV)/installed-dev ## Run the mutation tests: remove each constraint, fence and intent in turn; a test must fail
	$(BIN)/python -m tests.mutants

fuzz: $(VENV)/installed-dev ## Fuzz all external inputs (30 min)
	COUPONS_FUZZ_EXAMPLES=$${COUPONS_FUZZ_EXAMPLES:-6000} $(BIN)/python -m pytest -q --timeout=3600 -o faulthandler_timeout=0 --durations=0 tests/fuzz

audit: ## Check all locked versions for known vulnerabilities
	$(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv-audit/bin/pip-audit --strict --disable-pip --no-deps -r requirements.lock -r requirements-dev.lock

check: $(VENV)/installed-dev ## Check format, lint, types, import rules and workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet .github/workflows

bench: $(VENV)/installed-dev ## Run all benchmarks; write bench/results.json and docs/explanation/performance.md
	$(BIN)/python -m bench

bench-sending: $(VENV)/installed-dev ## Benchmark sending (ONLY=engine,latency for parts of it)
	$(BIN)/python -m bench sending $(if $(ONLY),--only $(ONLY))

bench-import: $(VENV)/installed-dev ## Benchmark importing (ONLY=codes,rule,large,recipients,xlsx for parts of it)
	$(BIN)/python -m bench importing $(if $(ONLY),--only $(ONLY))

docs: $(VENV)/installed-dev ## Write the generated reference pages; build the site into .site/
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python docs/check_site.py .site

picture: $(VENV)/installed-dev ## Write docs/demo.svg (the terminal of `make demo`) and docs/outbox.png (the console; needs Chromium)
	$(BIN)/python docs/picture.py
	$(BIN)/python docs/console_picture.py

lock: $(VENV)/installed-dev ## Update the lock files to the newest versions that pyproject.toml allows
	$(PIP) uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url \
	  --extra demo pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url \
	  --extra demo --group dev --constraint requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## Remove all generated files and the virtual environment
	rm -rf $(VENV) .venv-audit .demo .test .bench .site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installs exactly the locked versions; repeated only if a lock file or pyproject.toml is newer.
$(VENV)/installed: requirements.lock pyproject.toml | $(BIN)/pip
	$(PIP) -r requirements.lock
	$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.lock
	$(PIP) -r requirements-dev.lock
	@touch $@

# Debian has ensurepip in a separate package.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is required: make PYTHON=python3.x …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  root=""; [ "$$(id -u)" = 0 ] || root="sudo -n"; \
	  echo "installing python3-venv" >&2; \
	  $$root apt-get update -qq && $$root apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; \
	} || { echo "Python's venv is missing: sudo apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
