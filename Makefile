# make demo    make the environment, then run the demo job on the CPU
# make test    run every check: ruff, format, types, import direction, tests
# make audit   look for known vulnerabilities of all that constraints.txt pins; asks pypi.org

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test checks format audit
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/rendermill generate examples/demo.yaml

test: checks
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal --durations=10

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
	$(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null || true
	touch $@
