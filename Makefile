# Checkpoint Engine: `make help` lists the commands.
SHELL := /bin/bash
SWIFT ?= swift
BIN := .build/release/checkpoint-engine
RELEASE := -c release --product checkpoint-engine
# One build for all tests: what the Swift tests need internals of is the program that the others run.
TESTED := -c release -Xswiftc -enable-testing
CHECKED := --explicit-target-dependency-import-check error
PYTHON := .venv/bin/python
# Most tests wait more than they compute; two processes, each with whole files of tests.
PYTEST := $(PYTHON) -m pytest -q
SPREAD := -n 2 --dist loadfile
# Where ZeroMQ is looked for when the system has none: the copy inside pyzmq.
export VIRTUAL_ENV ?= $(abspath .venv)

.PHONY: help build test test-swift test-python test-vllm test-gpu fuzz lint format demo demo-vllm bench clean setup \
	wheel docs

help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

build: ## build the stripped release binary, .build/release/checkpoint-engine
	$(SWIFT) build $(RELEASE)

setup: ## install what tests and demos need: libzmq, .venv with vLLM for the CPU
	scripts/setup-zeromq
	scripts/setup-venv --vllm

demo: build ## make a checkpoint, update two reference workers twice, compare every byte
	scripts/setup-zeromq
	$(BIN) demo

demo-vllm: build setup ## update a real vLLM on the CPU and show its tokens before and after
	CHECKPOINT_ENGINE_BIN=$(BIN) $(PYTHON) examples/demo_vllm.py

# Downloads go on while the compiler works; `setup` waits for what is not there yet.
test: ## run every test, the real vLLM included
	@mkdir -p .build
	@scripts/setup-venv --vllm >.build/setup.log 2>&1 & trap wait EXIT; $(MAKE) test-swift
	@cat .build/setup.log
	$(MAKE) setup test-python fuzz test-vllm

test-swift:
	scripts/setup-zeromq
	$(SWIFT) build --build-tests $(TESTED) $(CHECKED)
	SWIFT="$(SWIFT)" scripts/test-swift $(TESTED)

# After test-swift: a build of its own would be one without the tests' flag.
test-python: setup
	CHECKPOINT_ENGINE_BIN=$(abspath $(BIN)) $(PYTEST) $(SPREAD) tests/python tests/faults tests/examples tests/chaos
	CHECKPOINT_ENGINE_BIN=$(abspath $(BIN)) $(PYTEST) $(SPREAD) tests/simulated
	CHECKPOINT_ENGINE_BIN=$(abspath $(BIN)) $(PYTEST) $(SPREAD) tests/trainer
	CHECKPOINT_ENGINE_BIN=$(abspath $(BIN)) $(PYTEST) tests/pull
	scripts/setup-sglang-worker
	CHECKPOINT_ENGINE_BIN=$(abspath $(BIN)) $(PYTEST) tests/sglang

test-vllm: setup
	CHECKPOINT_ENGINE_BIN=$(abspath $(BIN)) $(PYTEST) $(SPREAD) tests/vllm

fuzz: ## fuzz what parses bytes from outside, 20 seconds each
	Fuzz/run 20

lint: ## check format, imports, unsafe code, sizes, Python types
	scripts/setup-venv
	$(SWIFT) format lint --strict --parallel --recursive Sources Tests Fuzz Package.swift
	dev/lint-imports
	dev/lint-unsafe
	dev/lint-size
	$(PYTHON) -m ruff check python tests examples Benchmarks Fuzz
	$(PYTHON) -m mypy --config-file python/pyproject.toml python/checkpoint_engine

format: ## format the Swift and Python code
	$(SWIFT) format --in-place --parallel --recursive Sources Tests Package.swift
	$(PYTHON) -m ruff format python tests examples Benchmarks

test-gpu: build ## run the tests on GPUs; fails where one is needed and missing
	scripts/setup-known-workers
	CHECKPOINT_ENGINE_BIN=$(abspath $(BIN)) PYPI_WORKER_042=$(abspath .build/known-workers/0.4.2) \
	PYPI_WORKER_012=$(abspath .build/known-workers/0.1.2) python3 -m pytest -q tests/gpu

bench: build setup ## measure registration, delivery and memory; JSON in bench-results/
	CHECKPOINT_ENGINE_BIN=$(abspath $(BIN)) $(PYTHON) Benchmarks/host.py --output bench-results/host.json
	CHECKPOINT_ENGINE_BIN=$(abspath $(BIN)) $(PYTHON) Benchmarks/facade.py
	CHECKPOINT_ENGINE_BIN=$(abspath $(BIN)) $(PYTHON) Benchmarks/pull.py --output bench-results/pull.json

wheel: build ## make the Python package with the program in it, in dist/
	scripts/setup-venv
	$(PYTHON) scripts/build-wheel --binary $(BIN)

docs: build ## make the pages of the Swift library, in .build/docs
	scripts/build-docs

clean: ## remove what the build made
	rm -rf .build .build-* bench-results dist
