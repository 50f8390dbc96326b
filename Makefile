# Everything is one of these. Variables: PRESET=demo|tiny_imagenet|paper, DATA=<folder of the data set>, RUN=<name>.
PRESET ?= demo
DATA ?=
RUN ?= $(PRESET)
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup train test lint clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(BIN)/.ready ## make the virtual environment .venv with everything in it

$(BIN)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: setup ## train the network of PRESET
	$(BIN)/zfrepro train preset=$(PRESET) run=$(RUN) $(if $(DATA),data.root=$(DATA))

test: setup ## run the tests
	$(BIN)/python -m pytest

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove caches and the virtual environment; outputs/ stays
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache build dist *.egg-info
	find zfrepro tests scripts -name __pycache__ -type d -exec rm -rf {} +
