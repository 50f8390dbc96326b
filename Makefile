# Everything is one of these. PAPER=zfnet|vgg and PRESET=demo|tiny_imagenet|paper|pretrained|vgg_demo|vgg choose what is made,
# RUN=<name> where. For photographs: DATA=<folder of the data set>; for Tables 4-7 and Figure 9
# TARGET=caltech101|caltech256|voc2012 TARGET_DATA=<its folder>; for Table 1 PARTS=<a .csv>. With PRESET=pretrained:
# MODEL=torchvision/alexnet|torchvision/vgg16|..., WEIGHTS=<a file> and DATA_SET=imagenette|folder|... where nothing is to be
# fetched. TRAIN="<options>" goes to the training or the import: TRAIN="model.input_size=112 data.size=112".
PAPER ?= zfnet
PRESET ?=
RUN ?=
DATA ?=
DATA_SET ?=
MODEL ?= torchvision/alexnet
WEIGHTS ?=
TARGET ?=
TARGET_DATA ?=
PARTS ?=
TRAIN ?=
PYTHON ?= $(if $(filter Windows_NT,$(OS)),python,python3)
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

.DEFAULT_GOAL := help
# Their ids stand in the papers' lists; Figure 8 shows the pictures of Table 1.
ITEMS := fig8 $(shell grep -hv '"summary"' zfrepro/papers/*/items.py | grep -oE -e '"[a-z_]*fig[0-9]+", "' -e '"[a-z_]*table[0-9]+", "' \
	| cut -d '"' -f 2)
FIGURES = $(BIN)/python scripts/all_figures.py --paper $(PAPER) --preset "$(PRESET)" --run "$(RUN)" --data "$(DATA)" \
	--data-set "$(DATA_SET)" --model "$(MODEL)" --weights "$(WEIGHTS)" --target "$(TARGET)" \
	--target-data "$(TARGET_DATA)" --parts "$(PARTS)" $(if $(TRAIN),--train $(TRAIN))
.PHONY: help setup train all-figures $(ITEMS) test lint clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo "  make <one of>       $(ITEMS)"

setup: $(BIN)/.ready ## make the virtual environment .venv with everything in it

$(BIN)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: setup ## train the network of PRESET
	$(BIN)/zfrepro train $(if $(PRESET),preset=$(PRESET)) $(if $(RUN),run=$(RUN)) $(if $(DATA),"data.root=$(DATA)")

all-figures: setup ## every figure and table of PAPER, and the page; goes on where it stopped
	@$(FIGURES)

$(ITEMS): setup
	@$(FIGURES) --only $@

test: setup ## run the tests, a file at a time on each CPU
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove caches and the virtual environment; outputs/ stays
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache build dist *.egg-info
	find zfrepro tests scripts -name __pycache__ -type d -exec rm -rf {} +
