# Everything from a fresh checkout: needs git, make and Python 3.11+ with venv.
SHELL := /bin/bash
PY := .venv/bin/python
export UV_PYTHON_DOWNLOADS := never
# compiled once, not at each start of a command: that is 2.0 s instead of 3.4
export UV_COMPILE_BYTECODE := 1
export PYTHONDONTWRITEBYTECODE :=
PYTHON ?= python3

TEMPLATES = $(shell find templates -name '*.html')

.PHONY: setup demo run check test test-long agents test-agents hosts lint bench format soak ci-full screenshots

setup: .venv/.ready

.uv/bin/uv:
	@$(PYTHON) -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check uv

.venv/.ready: pyproject.toml uv.lock
	@if ! command -v uv >/dev/null 2>&1 && [ ! -x .uv/bin/uv ]; then $(MAKE) --no-print-directory .uv/bin/uv; fi
	@uv=$$(command -v uv || echo .uv/bin/uv); "$$uv" sync --frozen --quiet --python "$(PYTHON)"
	@touch .venv/.ready

# make demo AGENTS=claude [MODEL=…]: real agents, with your key where it is set, else with a scripted model
demo: setup
	@$(PY) manage.py demo $(if $(AGENTS),--agents "$(AGENTS)") $(if $(MODEL),--model "$(MODEL)")

run: setup
	@$(PY) manage.py up

# the quick loop of one change
check: lint
	@$(PY) -m pytest -n 2 --dist worksteal -q tests/unit tests/db

test: setup
	@$(PY) -m pytest -n 3 --dist worksteal -q --durations 15

# whole installations and browsers; .ci/run runs it after the others
test-long: setup
	@$(PY) -m pytest -n 3 --dist worksteal -q --durations 15 -m long

# the real coding agents, pinned, into .agents (some 1.5 GB)
agents:
	@.ci/agents

# each of them against a scripted model, in the sandbox; what is not there is skipped, with the reason
test-agents: setup
	@$(PY) -m pytest -q -rs --durations 10 -m agents tests/acceptance

# what GitHub says of its own API (15 MB), into .hosts: the tests' GitHub is judged by it
hosts:
	@.ci/hosts

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/djade --target-version 5.2 --check $(TEMPLATES)
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@$(PY) manage.py makemigrations --check --dry-run

format: setup
	@.venv/bin/ruff check --fix --quiet . ; .venv/bin/ruff format --quiet .
	@.venv/bin/djade --target-version 5.2 $(TEMPLATES) 2>/dev/null || .venv/bin/djade --target-version 5.2 --check $(TEMPLATES)

soak: setup
	@$(PY) -m pytest tests/soak.py -q -s -x -k model & model=$$!; \
	$(PY) -m pytest tests/soak.py -q -s -x -k processes; processes=$$?; wait $$model && exit $$processes

bench: setup
	@$(PY) -m bench

# what .ci/run has no time for
ci-full:
	@.ci/full

screenshots: setup
	@$(PY) tests/screenshots.py
