# make setup | demo | test | check | bench | clean. Each target makes what it needs; a second run finds it there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NATIVE := $(wildcard backend/native/*.cpp backend/native/*.h backend/native/*.hpp backend/native/*.py)
VECTOR_TESTS := tests/ckks tests/inference/test_networks.py tests/client tests/test_secrecy.py tests/test_tiny.py
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup setup-fate demo demo-two-sites test test-fate-jobs test-units test-quick test-fate2 test-fate1 test-py38 check format bench clean

help:
	@echo "make setup   the environment to develop and run (.venv)"
	@echo "make demo    a FATE 2.2 job on encrypted digits, on this machine"
	@echo "make demo-two-sites  the same job between two FATE 2.2 sites over RabbitMQ, and what crossed"
	@echo "make test    all tests, the FATE job included (test-quick: without it)"
	@echo "make test-fate2  every example on FATE 2.2, minutes more than make test"
	@echo "make test-fate1 FATE_PROJECT_BASE=...   the examples on a FATE 1.9 to 1.11, installed and taken out again"
	@echo "make test-py38   the unit tests on Python 3.8 with the oldest versions of what it needs"
	@echo "make check   ruff, mypy, Python 3.8 compatibility, import directions"
	@echo "make format  ruff's formatting and safe fixes"
	@echo "make bench   measure"
	@echo "make clean   remove environments and build outputs"

setup: $(READY)

$(READY): setup.py pyproject.toml requirements/constraints.txt requirements/dev.txt $(NATIVE)
	@test -x $(BIN)/python || { echo "making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install -q "$(TORCH)"
	$(BIN)/python -m pip install -q -r requirements/dev.txt
	@touch $@

# Has stamps of its own: nothing is done when nothing changed.
setup-fate:
	@PYTHON="$(PYTHON)" bash scripts/fate_env.sh

demo: setup setup-fate
	@$(BIN)/python scripts/fate_demo.py

# Needs RabbitMQ (apt-get install rabbitmq-server); says so where it is missing.
demo-two-sites: setup setup-fate
	@$(BIN)/python scripts/fate_demo.py two_sites --control

# Everything: the FATE jobs, which mostly wait for processes to start, beside all other tests.
test: setup setup-fate
	@$(MAKE) --no-print-directory -j 2 test-fate-jobs test-units

test-fate-jobs: setup setup-fate
	@$(BIN)/python -m pytest -q -m fate

# What depends on the processor also without its vector instructions.
test-units: setup
	@HE_NN_CPU=scalar $(BIN)/python -m pytest -q $(VECTOR_TESTS)
	@$(BIN)/python -m pytest -q -m "not fate"

test-quick: setup
	@$(BIN)/python -m pytest -q -m "not fate"

# Minutes more than `test` takes: besides the modes, the remaining examples by their conf and dsl files as they stand.
test-fate2: setup setup-fate
	@HE_NN_ALL_EXAMPLES=1 $(BIN)/python -m pytest -q -s tests/he_nn/test_fate_modes.py

# Skips, and says so, where there is no FATE 1.x.
test-fate1: setup
	@FATE_PROJECT_BASE="$(FATE_PROJECT_BASE)" $(BIN)/python -u scripts/fate1_jobs.py

# Skips, and says so, where there is no Python 3.8.
test-py38:
	@bash scripts/py38_tests.sh

check: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/vermin -q --no-tips --violations -t=3.8- he_nn backend/he_backend
	$(BIN)/python -m pytest -q tests/test_imports.py

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	@$(BIN)/he-nn bench

clean:
	rm -rf $(VENV) .venv-fate build dist .demo .demo-two-sites .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info backend/*.egg-info
	rm -f backend/he_backend/ckks/_native*.so
