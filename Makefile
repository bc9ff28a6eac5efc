# For those who like make; every target is a line of README.md. PYTHON chooses the interpreter.
PYTHON ?= python

.PHONY: train test test-fast lint bench

train:
	$(PYTHON) main_tf2.py --model_name=efficientnetv2-s --mode=train

test:
	$(PYTHON) -m pytest

test-fast:
	$(PYTHON) -m pytest -m "not slow"

bench:
	$(PYTHON) -m benchmarks.all

lint:
	ruff format --check .
	ruff check .
	mypy
