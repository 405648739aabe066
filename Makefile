# Each target does all of its set-up on a machine that has Python (>= 3.11) and pip alone.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: scan test lint format clean

scan: .venv/.installed  ## simulate a small survey, scan it with the shipped bundle, write runs/demo/
	$(BIN)/python jobs/scan_survey.py

test: .venv/.installed-dev  ## all tests, the slow ones too
	$(BIN)/python -m pytest

lint: .venv/.installed-dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/.installed-dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ .venv/.installed

clean:
	rm -rf .venv runs
