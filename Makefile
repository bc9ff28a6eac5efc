# Shortcuts for commands of README.md. PYTHON chooses the interpreter: make test PYTHON=python3.12
# The environment of the README, if it is there.
PYTHON ?= $(firstword $(wildcard .venv/bin/python) python)

.PHONY: train test test-fast lint bench

train:
	$(PYTHON) main_tf2.py --model_name=efficientnetv2-s --mode=train

test:
	$(PYTHON) -m pytest -n 2 --dist loadfile

test-fast:
	$(PYTHON) -m pytest -n 2 --dist loadfile -m "not slow"

bench:
	$(PYTHON) -m benchmarks.all

lint:
	ruff format --check .
	ruff check .
	mypy
