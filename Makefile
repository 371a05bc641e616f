# Needs nothing but make and Python 3.11 or later; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEPLOY_TOOLS := $(VENV)/.deploy-tools
# Apart from the rest: with numpy in its environment the langfuse package imports it.
PLOTTING := $(VENV)/plotting
# What a benchmark measures has the packages of the image: httpx and structlog import rich where the tests have brought it.
MEASURED := $(VENV)/measured
# A target for each folder of tests: `make test-unit`, `make test-e2e` and so on.
TESTS := test-e2e test-integration test-oracle test-deploy test-unit test-http test-conformance
# What runs side by side, three at a time, the longest first: each waits for servers most of the time. The oracle kills and
# stops what it has started, so it comes after the integration tests, when less else runs.
SIDE_BY_SIDE := test-e2e integration-then-oracle test-deploy test-unit test-http test-conformance

.DEFAULT_GOAL := help
.PHONY: help venv demo lint check test $(TESTS) integration-then-oracle soak soak-destinations format derive benchmark lock clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

venv: $(INSTALLED)  ## build .venv with the tailer command in it

$(INSTALLED): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; choose one with: make venv PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(INSTALLED)

demo: venv  ## play recorded LibreChat traffic through a real MongoDB and the real daemon
	@$(BIN)/tailer demo

$(DEPLOY_TOOLS): tests/deploy/tools.lock $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r tests/deploy/tools.lock
	@touch $(DEPLOY_TOOLS)

lint: venv  ## form, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint  ## the inner loop, a minute or two: lint, and the unit tests on all processors
	$(BIN)/python -m pytest -q --numprocesses=auto tests/unit

test: lint $(DEPLOY_TOOLS)  ## the whole check: lint, and the tests of all folders with their coverage
	$(BIN)/coverage erase
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=line $(SIDE_BY_SIDE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

$(TESTS): test-%: $(INSTALLED)
	$(BIN)/coverage run -m pytest -p no:cacheprovider --durations=10 tests/$*

test-deploy: $(DEPLOY_TOOLS)

integration-then-oracle:
	@$(MAKE) --no-print-directory test-integration
	@$(MAKE) --no-print-directory test-oracle

soak: venv  ## the oracle for long: make soak ROUNDS=200 TAILER_TEST_SEED=7
	TAILER_ORACLE_ROUNDS=$(or $(ROUNDS),200) $(BIN)/python -m pytest -s -q tests/oracle/test_oracle.py

soak-destinations: venv  # the same with three destinations: make soak-destinations ROUNDS=20
	TAILER_ORACLE_ROUNDS=$(or $(ROUNDS),20) $(BIN)/python -m pytest -s -q tests/oracle/test_destinations.py

format: venv  ## put the code into the project's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

derive: venv  ## bring the copies in the Helm chart and the Kustomize components up to date
	$(BIN)/python deploy/derive.py

benchmark: venv $(PLOTTING) $(MEASURED)  ## the daemon against the script that a user would write instead: tables and a plot
	$(BIN)/python -m tests.benchmarks --python $(MEASURED)/bin/python --output build/benchmark $(OPTIONS)
	$(PLOTTING)/bin/python -m tests.benchmarks.plot build/benchmark/figures.json build/benchmark/plot.svg

$(PLOTTING): tests/benchmarks/plotting.lock $(INSTALLED)
	rm -rf $(PLOTTING)
	$(PYTHON) -m venv --without-pip $(PLOTTING)
	$(BIN)/pip --python $(PLOTTING)/bin/python install --quiet --disable-pip-version-check --require-hashes \
		-r tests/benchmarks/plotting.lock

$(MEASURED): deploy/image/runtime.lock $(INSTALLED)
	rm -rf $(MEASURED)
	$(PYTHON) -m venv --without-pip $(MEASURED)
	$(BIN)/pip --python $(MEASURED)/bin/python install --quiet --disable-pip-version-check --require-hashes \
		-r deploy/image/runtime.lock

lock: venv  ## renew requirements.lock from pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --no-annotate --extra demo --extra test --all-build-deps --upgrade \
		--output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --no-annotate --constraint requirements.lock --upgrade \
		--output-file deploy/image/runtime.lock pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --no-annotate --only-build-deps --all-build-deps --upgrade \
		--output-file deploy/image/build.lock pyproject.toml
	cd tests/deploy && ../../$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-annotate --upgrade \
		--output-file tools.lock tools.in
	cd tests/benchmarks && ../../$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-annotate --upgrade \
		--output-file plotting.lock plotting.in

clean:  ## remove what the commands above made
	rm -rf $(VENV) .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
