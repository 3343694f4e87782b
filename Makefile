# Two commands set everything up on a machine with Python 3.11+ and make: `make check` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests run on two processes; a thread each keeps them out of each other's way.
WORKERS ?= 2

.PHONY: help check quick compare smoke interpreted runner-example test gates lint types readme pictures kill-matrix likeness vectors-gate fuzz thorough docs pages clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "detr-spec needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# The other families of transformers hold the same text as one of these; `detr-spec check transformers` takes all.
DISTINCT_CORES := deformable_detr mask2former rt_detr_v2

check: $(READY)  ## set up, then check the distinct deformable cores of transformers (smoke profile)
	for family in $(DISTINCT_CORES); do \
	    $(BIN)/detr-spec check transformers-$$family --operation ms_deform_attn --profile smoke || exit $$?; \
	done

test: $(READY) lint types  ## every test of the project
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# What differs from main, or with SINCE=REV from another revision.
SINCE ?= main
TOUCHED = $(BIN)/python spec_tests/helpers/touched.py --since $(SINCE)

quick: $(READY) lint  ## lint, types and tests of what changed, and the gates without mutants (at most 3 minutes)
	packages="$$($(TOUCHED) mypy)" && if [ -n "$$packages" ]; then $(BIN)/mypy $$packages; fi
	tests="$$($(TOUCHED) pytest)" && OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $$tests

# On two processes, a core each. A run that was stopped goes on; a finished one is evaluated again.
smoke: $(READY)  ## train a small DINO on generated shapes, in runs/smoke (about 10 minutes)
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 -m detr_reference.cli train smoke --workers 0 \
	    $(if $(wildcard runs/smoke/checkpoint.pt),--resume)

interpreted: $(READY)  ## the Triton kernel without a GPU, in Triton's interpreter (about a minute)
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/detr-spec check triton-kernel-deterministic \
	    --operation ms_deform_attn --profile smoke --dtype float32

runner-example: $(READY)  ## build the runner in C++ and check it, whole (about 3 minutes; takes a C++ compiler)
	mkdir -p build
	$(CXX) -std=c++17 -O2 -o build/runner docs/examples/cpp_runner/runner.cpp
	$(BIN)/detr-spec runner-test build/runner
	OMP_NUM_THREADS=1 $(BIN)/detr-spec check --runner build/runner

gates: $(READY)  ## the reference and every twin by everything that a check asks; `make test` asks a quarter of most
	DETR_SPEC_GATES=whole OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal spec_tests/harness/test_gates.py \
		-k "twin or reference"

compare: $(READY)  ## DINO with ResNet-50 at 480 x 640: are right ports right, and planted mistakes named? (half an hour, 7 GB)
	cd spec_tests && ../$(BIN)/python -m helpers.ports

lint: $(READY)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy
	$(BIN)/mypy

readme: $(READY)  ## repeat a run that the documents show and fill it in: RUN=name; without RUN all (hours)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python docs/fill.py --run $(or $(RUN),all)

pictures: $(READY)  ## draw the pictures of the spec chapters from the reference
	$(BIN)/python docs/pictures.py

kill-matrix: $(READY)  ## every mutant against every clause; writes docs/kill-matrix.md and its JSON (about 20 minutes)
	$(BIN)/python -m detr_conformance.running.kill_matrix conformance/detr_conformance/evidence/kill-matrix.json.gz docs/kill-matrix.md

likeness: $(READY)  ## which mutants are named by what they behave like; writes docs/likeness.md and its JSON (about 20 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m detr_conformance.likeness.measure docs/runs/likeness.json.gz docs/likeness.md \
		--kill-matrix conformance/detr_conformance/evidence/kill-matrix.json.gz

vectors-gate: $(READY)  ## do vectors judge outputs of mutants as the suite judges the mutants? (float32; an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m detr_conformance.vectors.gate --dtype float32

fuzz: $(READY)  ## 3,000 damaged inputs for everything that reads from outside; seven minutes
	cd spec_tests && OMP_NUM_THREADS=1 ../$(BIN)/python -m helpers.fuzzing 3000

thorough: $(READY)  ## the reference under random cases, seed printed
	$(BIN)/detr-spec check reference --profile thorough

docs: $(VENV)/.docs  ## build the documentation site in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

BROWSER := $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name))))

pages: docs $(if $(BROWSER),$(VENV)/.pages)  ## look at the site and at reports with Chromium, if there is one; pictures in build/pages
	$(BIN)/python docs/pages.py $(BROWSER)
	$(BIN)/python -m pytest -q spec_tests/reports/test_pages_in_browser.py

$(VENV)/.pages: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[pages]'
	touch $@

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache detr-cases
