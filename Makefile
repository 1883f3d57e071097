# What people run. `make demo` and `make test` are all that a newcomer needs; each makes .venv when it is missing.
SHELL := /bin/bash
# The newest Python that is there and at least 3.11; another one with PYTHON=/path/to/python.
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && echo $$python && break; done)
PIP := .venv/bin/python -m pip --disable-pip-version-check

.PHONY: demo demo-front test test-slow docs bench bench-scale bench-growth bench-grouping bench-glue bench-search bench-stopping bench-fronts soak measure-failures check format clean

# torch is installed first and by itself: pip then keeps that build (a CPU one where an index offers it).
.venv/installed: pyproject.toml constraints.txt
	@echo "installing dependencies into .venv (a few minutes the first time)" >&2
	@test -x .venv/bin/python || test -n "$(PYTHON)" || \
	  { echo "make: found no Python 3.11 or newer; name one with PYTHON=/path/to/python"; exit 2; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@$(PIP) install --quiet --constraint constraints.txt torch
	@$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/installed-test: .venv/installed
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[test]'
	@# For W&B's schema of sweeps alone: its own dependencies ask for an old numpy.
	@$(PIP) install --quiet --constraint constraints.txt --no-deps sweeps
	@$(PIP) install --quiet --no-deps --upgrade --target .venv/cluster --requirement tests/cluster/requirements.txt
	@touch $@

.venv/installed-docs: .venv/installed
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

.venv/installed-onnx: .venv/installed
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[onnx]'
	@touch $@

demo: .venv/installed
	@.venv/bin/fsd-tune demo

# Students of three depths by accuracy and latency, and an int8 file of the chosen one.
demo-front: .venv/installed-onnx
	@.venv/bin/fsd-tune demo --front

# Two processes on two cores; a file's tests stay together, for they share what its fixtures have searched.
SIDE_BY_SIDE := --numprocesses 2 --dist loadfile --no-loadscope-reorder
TIMES := --durations 40 --durations-min 2

test: .venv/installed-test
	.venv/bin/python -m pytest $(SIDE_BY_SIDE) $(TIMES)

# The demo takes both cores, the hosts of tests/cluster share one network and their times are told: one after the other.
test-slow: .venv/installed-test
	.venv/bin/python -m pytest -m slow $(TIMES) $(SIDE_BY_SIDE) --ignore tests/cluster --ignore tests/integration/test_demo.py
	.venv/bin/python -m pytest -m slow $(TIMES) tests/integration/test_demo.py tests/cluster

# The documentation site, in site/. A dead link or a missing reference is an error. Nothing is fetched while it is built.
docs: .venv/installed-docs
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@echo "site/index.html"

# What a trial costs beside plain fine-tuning. BENCH='--device cuda' or BENCH=--json for more.
bench: .venv/installed-test
	@.venv/bin/python -m benchmarks $(BENCH)

# Memory and time at MNLI's number of rows, from generated sentences.
bench-scale: .venv/installed-test
	@.venv/bin/python -m benchmarks.scale $(BENCH)

# Processor time of the driver as a search grows to thousands of trials, without training.
bench-growth: .venv/installed-test
	@.venv/bin/python -m benchmarks.growth $(BENCH)

# Dev scores of grouped batches beside random ones on paired seeds: hours. BENCH='--glue FOLDER --tasks cola,rte' and more.
bench-grouping: .venv/installed-test
	@.venv/bin/python -m benchmarks.grouping $(BENCH)

# Students on official GLUE tasks, each method from two starts: hours on CPUs. BENCH='--glue FOLDER --tasks stsb --device cuda'.
bench-glue: .venv/installed-test
	@.venv/bin/python -m benchmarks.record $(BENCH)

# Our search beside stock ones, replayed on tables of learning curves. BENCH='--tables FILE_OR_FOLDER --json' for others.
bench-search: .venv/installed-test
	@.venv/bin/python -m benchmarks.searches $(BENCH)

# What `search.stop_when: noise` saves and loses, replayed on tables of learning curves.
bench-stopping: .venv/installed-test
	@.venv/bin/python -m benchmarks.stopping $(BENCH)

# Our search for a front of score and cost beside Optuna's, replayed on tables of trained networks: ten minutes of one core.
bench-fronts: .venv/installed-test
	@.venv/bin/python -m benchmarks.fronts $(BENCH)

# One search killed at 20 random moments and resumed each time.
soak: .venv/installed-test
	@.venv/bin/python -m benchmarks.soak $(SOAK)

# Three hosts made of namespaces (root): how long a search takes to go on after a host has died or is cut off.
measure-failures: .venv/installed-test
	@.venv/bin/python -m tests.cluster.measure

check: .venv/installed-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

format: .venv/installed-test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv build site *.egg-info .pytest_cache .mypy_cache .ruff_cache
