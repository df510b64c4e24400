# Needs python3 >= 3.11 with venv and pip, and git. Everything is installed into .venv, at the versions of constraints.txt;
# pip finds packages the way this machine's configuration says.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

# Handed to what the target runs: make demo ARGS="--seconds 5 --plain", make test ARGS="-k codec".
ARGS ?=

.PHONY: help demo test check bench bench-peers plots format constraints changelog clean

help:
	@echo 'make demo     a broker, a feed of real stock prices and a live table of them; Ctrl-C ends it'
	@echo 'make test     everything that must pass: make check, then all tests'
	@echo 'make check    lint, formatting, types, layers'
	@echo 'make bench    measure the broker and the client on this machine; bench-peers: the client beside nats-py'
	@echo 'make plots    measure and draw docs/plots anew'
	@echo 'make format   let ruff mend what it can'

demo: $(VENV)/run.stamp
	$(BIN)/python -m fanwire demo $(ARGS)

test: check
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/run.stamp
	$(BIN)/python -m tests.bench

bench-peers: $(VENV)/bench.stamp
	$(BIN)/python -m tests.bench.sdk $(ARGS)
	$(BIN)/python -m tests.bench.request_reply

plots: $(VENV)/plots.stamp
	$(BIN)/python -m tests.bench.slow_series --series $(VENV)/series.json
	$(BIN)/python docs/plots/make_plots.py $(VENV)/series.json

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints:
	echo '# Versions that fit together, for `pip install -c`. Written by `make constraints`; not edited by hand.' > constraints.txt
	uv pip compile --quiet --universal --python-version 3.11 --upgrade --all-extras --group dev --group bench --group plots \
	  --no-emit-index-url --no-header --no-annotate pyproject.toml >> constraints.txt

changelog: $(VENV)/dev.stamp
	$(BIN)/towncrier build --draft

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache

# Each stamp says what has been installed; a second run finds it and goes straight on.
$(VENV)/pip.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'error: Fanwire needs Python 3.11 or newer; say which: make PYTHON=python3.12 …' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'error: this Python has no venv; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet 'pip>=25.1'
	@touch $@

$(VENV)/run.stamp: $(VENV)/pip.stamp pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable '.[all]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(PIP_INSTALL) --group dev
	@touch $@

$(VENV)/plots.stamp: $(VENV)/run.stamp
	$(PIP_INSTALL) --group plots
	@touch $@

$(VENV)/bench.stamp: $(VENV)/run.stamp
	$(PIP_INSTALL) --group bench
	@touch $@
