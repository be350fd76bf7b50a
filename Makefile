# profl-edge. `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(shell find edge_runtime/csrc -type f) CMakeLists.txt device_profiles/data/operators.txt
CPP := $(shell find edge_runtime/csrc -name '*.cpp' -o -name '*.h')

.PHONY: help demo test lint format wheel wheel-aarch64 data
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) data ## train one network on six devices none of which could train it alone
	$(BIN)/profl-server run --fleet examples/fleets/demo.toml --engine local -o runs/demo --resume

test: $(STAMP) lint ## every check that CI runs
	$(BIN)/python -m pytest -m "not study"

lint: $(STAMP) ## ruff, mypy --strict, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: $(STAMP) ## format all sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

wheel: $(STAMP) ## build the wheel into dist/
	$(BIN)/pip wheel --no-deps --no-build-isolation -w dist .

wheel-aarch64: $(STAMP) ## build the wheel for 64-bit ARM into dist/ (needs Debian's g++-aarch64-linux-gnu)
	$(BIN)/python -m tools.aarch64.wheel -o dist

data: $(STAMP) ## get Fashion-MNIST where Debian's package can be had
	@sh tools/get_fashion_mnist.sh data/fashion-mnist

# torch first and by its exact version, so that nothing behind it resolves another build. The native module is
# installed into the source tree as well, so that commands run from here find it.
$(STAMP): pyproject.toml $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet executorch==1.5.1 'scikit-build-core>=0.11' 'nanobind>=2.4' 'cmake>=3.28' ninja
	$(BIN)/pip install --quiet --no-build-isolation -e '.[dev]'
	touch $(STAMP)
