# Two commands do everything on a fresh machine (both as root): `make up` and `make test`.
.DELETE_ON_ERROR:
.PHONY: help up test test-vm lint format bench clean
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/.ready
DEV    := $(VENV)/.ready-dev

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 14

up: $(READY)     ## install, start a registry and a node, print what to try; Ctrl-C stops both
	@dev/up

test: $(DEV)     ## install what the tests need and run all of them (lint too)
	@dev/test $(TESTS)

test-vm: $(DEV)  ## the tests that need cgroup v2 and systemd, under a kernel of their own (make test: all but the node)
	@SEAWALL_VM_NODE=1 $(VENV)/bin/pytest -q tests/vm

lint: $(DEV)     ## ruff, mypy --strict, the import contracts
	@dev/lint

format: $(DEV)   ## let ruff sort the imports
	@$(VENV)/bin/ruff check --fix --select I .

bench: $(DEV)    ## how to repeat the measurements
	@cat bench/README.md

clean:           ## remove the virtual environment and caches, never SEAWALL_HOME
	rm -rf $(VENV) .tools build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache

$(READY): pyproject.toml constraints.txt dev/install
	@PYTHON=$(PYTHON) dev/install $(VENV) runtime
	@touch $@

$(DEV): pyproject.toml constraints.txt dev/install dev/packages dev/gotools dev/gotools.list dev/pytools dev/vmkernel
	@PYTHON=$(PYTHON) dev/install $(VENV) dev
	@dev/gotools .tools/bin
	@dev/pytools .tools $(VENV)
	@dev/vmkernel .tools/vm
	@touch $@ $(READY)
