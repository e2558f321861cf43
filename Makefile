# make demo    make the environment, then run the demo job on the CPU
# make unit    run the tests that need no Ray: less than a minute
# make test    run every check: ruff, format, types, import direction, tests
# make nightly run the tests that are too long for each commit
# make pipelines  try tiny checkpoints of many pipelines of diffusers
# make audit   look for known vulnerabilities of all that constraints.txt pins; asks pypi.org

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=worksteal

.PHONY: demo unit test tests nightly pipelines checks format audit
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/rendermill generate examples/demo.yaml

unit: .venv/installed
	$(PYTEST) tests/unit

test: .venv/installed
	$(MAKE) --no-print-directory --jobs=2 --keep-going checks tests

tests: .venv/installed
	$(PYTEST) --durations=10

nightly: .venv/installed
	$(PYTEST) -m nightly --durations=10

pipelines: .venv/installed
	$(PYTEST) -m pipelines --durations=10

checks: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/tables.py --check
	$(BIN)/hadolint deploy/Dockerfile

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/tables.py

audit:
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --quiet --disable-pip-version-check 'pip-audit>=2.9'
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	# on all cores, where pip takes one; where Python may not write bytecode, each process would compile all that it imports
	# (tests of libraries, a sixth of all code, and Ray's reinforcement learning are never imported)
	$(BIN)/python -m compileall -q -j 0 -x '/tests/|/rllib/' .venv/lib >/dev/null || true
	touch $@
