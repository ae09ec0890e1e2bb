# otoscope. `make demo` and `make test` are all a newcomer needs; both make .venv by themselves.

PYTHON ?= python3
VENV   ?= .venv
# Another build of torch: make install TORCH=torch==2.12.0 TORCH_INDEX=<index that has it>.
# By default the release of constraints.txt. On Linux the common index serves a CUDA build of it (some 3 GB with its
# libraries, it runs on the CPU as well); name PyTorch's index of CPU builds as TORCH_INDEX for the small one.
TORCH       ?=
TORCH_INDEX ?=

BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet
# What is installed stays: later steps are held to the torch that is there.
KEPT   := --constraint $(VENV)/.torch
# What the commands of the README need beyond the base: a 4-bit language model, the served page, spoken corpora, pauses found.
EXTRAS ?= gguf,serve,synth,vad
# Most processes that share the tests, one a core; each takes up to 4 GB.
WORKERS ?= 4
# Without a word on torch what was chosen before is kept.
CHOICE := $(strip $(TORCH) $(TORCH_INDEX))
ENV_FILES := pyproject.toml constraints.txt

.DEFAULT_GOAL := help

FORCE:

.PHONY: FORCE help demo install dev test lint api bench docs web package release-check audit clean

help:
	@echo "make demo     explain the sample clip and say where the page is"
	@echo "make test     the whole test suite"
	@echo "make install  .venv with what the commands of the README need"
	@echo "make lint     formatting, lint, types, layering"
	@echo "make bench    benchmarks; results in benchmarks/results and docs/benchmarks.md"
	@echo "make docs     the documentation site, in site/"
	@echo "make web      build the page bundle again (needs Node)"
	@echo "make api      write the list of the public interface again"
	@echo "make package  sdist and wheel, in dist/"
	@echo "make release-check  both, installed into a new environment and tried there"
	@echo "make audit    bill of materials of .venv, and known vulnerabilities in it"

$(VENV)/.choice: FORCE
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -f $@ -a -z '$(CHOICE)' || { echo '$(CHOICE)' | cmp -s - $@ || echo '$(CHOICE)' > $@; }

$(VENV)/.extras: $(VENV)/.choice FORCE
	@echo '$(EXTRAS)' | cmp -s - $@ || echo '$(EXTRAS)' > $@

$(VENV)/.torch: $(VENV)/.choice constraints.txt
	@echo "Installing torch"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(or $(TORCH),--constraint constraints.txt torch)
	@$(BIN)/python -c "from importlib.metadata import version; print('torch==' + version('torch'))" > $@

$(VENV)/.installed: $(VENV)/.torch $(VENV)/.extras $(ENV_FILES)
	@echo "Installing otoscope"
	@$(PIP) $(KEPT) --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed $(ENV_FILES)
	@echo "Installing what the tests need"
	@$(PIP) $(KEPT) --editable '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.installed $(ENV_FILES)
	@$(PIP) $(KEPT) --editable '.[docs]'
	@touch $@

install: $(VENV)/.installed

dev: $(VENV)/.dev

demo: $(VENV)/.installed
	@$(BIN)/otoscope explain src/otoscope/audio/samples/jfk.flac --out jfk.explain.html --force

test: $(VENV)/.dev
	@$(BIN)/python -m pytest --numprocesses logical --maxprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-cache

api: $(VENV)/.dev
	@$(BIN)/python -m tests.public_api

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@$(BIN)/python docs/check_site.py site

web:
	@cd web && npm ci && npm run build

package: $(VENV)/.dev
	@$(BIN)/python -m build --outdir dist

release-check: $(VENV)/.dev
	@$(BIN)/python -m release.check --constraint $(VENV)/.torch

# The tools have an environment of their own, so that the bill names what otoscope needs and not what wrote it.
audit: $(VENV)/.installed
	@test -x $(VENV)-audit/bin/python || $(PYTHON) -m venv $(VENV)-audit
	@if $(VENV)-audit/bin/python -m pip install --quiet 'cyclonedx-bom>=5' 'pip-audit>=2.8' 2>/dev/null; then \
	  $(VENV)-audit/bin/python -m release.audit $(BIN)/python $(AUDIT); \
	else echo "No audit: its tools cannot be had from this package index."; [ -n "$(AUDIT)" ]; fi

clean:
	rm -rf $(VENV) $(VENV)-audit site build dist
