# Every task of this repository. `make` lists them; .ci/run calls the same ones.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

BIN   := .venv/bin
STAMP := .venv/.installed

# The first of these that works, is new enough and can make a virtual environment. A name on PATH proves
# nothing (version managers leave empty shims), so each is tried. Override: make install PYTHON=/some/python
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import ensurepip, ssl, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
		&& { echo $$python; break; }; done)

##@ Use

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: install
install: $(STAMP) ## Make .venv with the locked packages and this project, editable

# The lock holds the build backend too, so the last step fetches nothing.
$(STAMP): pyproject.toml requirements.lock
	@set -e; python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
		echo "make: Python 3.11 or newer with venv and ensurepip is needed; name one with PYTHON=..." >&2; exit 1; \
	fi; \
	$(BIN)/python -c 'import pip' 2>/dev/null || { \
		echo "make: installing into .venv; this takes half a minute" >&2; "$$python" -m venv --clear .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation -e .
	@touch $@

# `exec` and `@`: the program gets the terminal's Ctrl-C itself, and what it prints last is the last line.
.PHONY: run
run: $(STAMP) ## Watch a small fleet run; REPO=path LOOP=id DURATION=seconds are optional
	@exec $(BIN)/python -m manager.demo \
		$${REPO:+--repo "$$REPO"} $${LOOP:+--loop "$$LOOP"} $${DURATION:+--duration "$$DURATION"}

.PHONY: example
example: $(STAMP) ## Watch the layers of a small agent, traced; leaves trace.jsonl
	@$(BIN)/python examples/four_layers.py --trace

##@ Check

# Many tests wait for time to pass: more of them run at a time than there are cores.
.PHONY: test
test: $(STAMP) ## Run the tests; ARGS="-k name" runs some of them, with options of pytest
	@$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),-n 5 --dist worksteal)

# The contract is compared with an image of the last release, committed beside it, and not with git
# history: a shallow clone or a first commit has none.
.PHONY: lint
lint: $(STAMP) ## Check style, types, import rules, the wire contract and generated pages
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/python -m mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/buf lint proto
	@$(BIN)/buf breaking proto --against proto/released.json
	@$(BIN)/python -m tools.runbook --check
	@$(BIN)/python -m tools.points --check
	@$(BIN)/python -m tools.tracing --check
	@$(BIN)/python -m tools.dashboard --check

# Apart from `lint`, since promtool is no Python package.
.PHONY: deploy-check
deploy-check: $(STAMP) ## Check alert rules, scrape configurations and queries with promtool
	@$(BIN)/python -m tools.deploy_check

# Error 1: something is known against a package. Error 3: there is nobody to ask, about all packages or some, so
# that nothing is said of them. make itself ends with 2 either way; `python -m tools.audit` with that number.
.PHONY: audit
audit: $(STAMP) ## Look up what is known against the locked packages
	@$(BIN)/python -m tools.audit

.PHONY: wheel-check
wheel-check: $(STAMP) ## Build the wheel twice, in unlike surroundings, and compare
	@$(BIN)/python -m tools.wheel --check

.PHONY: fuzz
fuzz: $(STAMP) ## Fuzz one target for long: TARGET=name MINUTES=30; keeps what fails in tests/fuzz/corpus
	@$(BIN)/python -m tests.fuzz $(TARGET) --minutes $(or $(MINUTES),1)$(if $(SEED), --seed $(SEED))

.PHONY: bench
bench: $(STAMP) ## Measure throughput, latency and memory
	@$(BIN)/python -m bench $(ARGS)

# Long runs of what the tests do in short. A failure tells the seed: SEED=n does the same again.
.PHONY: crash
crash: $(STAMP) ## Kill agents and manager at random, CYCLES=200 times, and compare with a fresh pass
	@SPRITEMESH_CRASH_CYCLES=$(or $(CYCLES),200) $(if $(SEED),SPRITEMESH_CRASH_SEED=$(SEED)) \
		$(BIN)/python -m pytest -q -s tests/faults/test_fleet_crash.py

.PHONY: soak
soak: $(STAMP) ## Watch memory, descriptors and threads of a manager of 200 sprites for MINUTES=30
	@$(BIN)/python -m bench.soak $(or $(MINUTES),30)

##@ Release

.PHONY: wheel
wheel: $(STAMP) ## Build dist/*.whl, the same bytes wherever this commit is built
	@$(BIN)/python -m tools.wheel

.PHONY: sbom
sbom: $(STAMP) ## Write dist/sbom.cdx.json: what an installation runs, with hashes and licenses
	@$(BIN)/python -m tools.sbom

##@ Contract

.PHONY: gen
gen: $(STAMP) ## Rewrite gen/ from proto/
	@$(BIN)/python -m tools.gen

.PHONY: gen-check
gen-check: $(STAMP) ## Fail if gen/ is not what proto/ generates
	@$(BIN)/python -m tools.gen --check

.PHONY: docs
docs: $(STAMP) ## Rewrite the generated parts of docs/ and deploy/
	@$(BIN)/python -m tools.runbook
	@$(BIN)/python -m tools.points
	@$(BIN)/python -m tools.tracing
	@$(BIN)/python -m tools.dashboard

.PHONY: proto-release
proto-release: $(STAMP) ## Declare proto/ as it is now the released contract
	@$(BIN)/buf build proto --exclude-source-info -o proto/released.json

##@ Care

.PHONY: lock
lock: PYTHON = python3.11
lock: ## Rewrite requirements.lock from pyproject.toml; UPGRADE=1 takes newer versions
	@$(PYTHON) -m tools.lock $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## Remove the virtual environment and everything that tools left behind
	@rm -rf .venv dist build .coverage htmlcov \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
