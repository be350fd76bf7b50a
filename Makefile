# profl-edge. `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The editable install knows every module by its file: it is made again when one comes, goes or moves.
MODULES := $(firstword $(shell find device_profiles edge_runtime profiler server -name '*.py' | LC_ALL=C sort | cksum))
STAMP := $(VENV)/.installed-$(MODULES)
NATIVE := $(shell find edge_runtime/csrc -type f) CMakeLists.txt cmake/executorch.cmake device_profiles/data/operators.txt
# PyTorch's own index has a build for the CPU alone (0.2 GB); the default build for x86-64 brings CUDA with it.
TORCH_INDEX ?=
TORCH_NOTE :=: several GB with CUDA's libraries on x86-64; TORCH_INDEX=URL takes the build for the CPU, see README
CPP := $(shell find edge_runtime/csrc -name '*.cpp' -o -name '*.h')

SANITIZED := build/sanitize
# Those of kernels, but the ones that only start others, and the random ones, which have lines of their own.
SANITIZED_TESTS := $(filter-out %_instruction_sets.py %_random.py,$(wildcard tests/device/test_kernels*.py))

# A worker a core, of 1 GB each. Tests of one file stay together and share its fixtures; those of devices come first,
# which take the longest.
WORKERS := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: help demo federation-demo test sanitize sanitize-runner lint format wheel wheels runner sdist data
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) data ## train one network on six devices none of which could train it alone
	$(BIN)/profl-server run --fleet examples/fleets/demo.toml --engine local -o runs/demo --resume

federation-demo: $(STAMP) data ## three light clients and a server that know each other by the network alone
	$(BIN)/python -m tools.federation_demo

test: $(STAMP) lint ## every test and check; CI runs this and sanitize
	$(BIN)/python -m pytest -m "not study" $(WORKERS)

# PyTorch, the reference, runs on one thread: its others would only wait for it. -qq leaves the last word to `make test`.
# On two cores this takes less than five minutes; docs/security.md says how to fuzz for longer.
sanitize: export OMP_NUM_THREADS := 1
sanitize: $(SANITIZED)/build.ninja ## kernels and both engines under the address and undefined-behaviour sanitizers: tests, a short fuzz
	$(BIN)/cmake --build $(SANITIZED) --target all fuzz_programs_executorch fuzz_programs_own
	$(BIN)/cmake --install $(SANITIZED) --prefix $(SANITIZED)/tree
	$(BIN)/python -m tools.fuzz.sanitized -m pytest -qq -p no:cacheprovider $(SANITIZED_TESTS)
	$(BIN)/python -m tools.fuzz.sanitized -m tools.fuzz.geometries --exact --count 16
	PROFL_INSTRUCTION_SET=avx2 $(BIN)/python -m tools.fuzz.sanitized -m tools.fuzz.geometries --exact --count 4
	PROFL_INSTRUCTION_SET=baseline $(BIN)/python -m tools.fuzz.sanitized -m tools.fuzz.geometries --exact --count 4
	$(BIN)/python -m tools.fuzz.corpus $(SANITIZED)/corpus
	ASAN_OPTIONS=detect_leaks=0 $(SANITIZED)/fuzz_programs_executorch 20 1 $(SANITIZED)/corpus/*/programs/*.pte
	$(SANITIZED)/fuzz_programs_own 10 2 $(SANITIZED)/corpus/*/programs/*.pte

sanitize-runner: $(SANITIZED)/build.ninja ## profl-train under the same sanitizers: all that it refuses
	$(BIN)/cmake --build $(SANITIZED) --target profl-train
	PROFL_TEST_RUNNER=$(SANITIZED)/profl-train $(BIN)/python -m pytest tests/device/test_runner_refusals.py

$(SANITIZED)/build.ninja: $(STAMP)
	$(BIN)/cmake -S . -B $(SANITIZED) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
		-DPython_EXECUTABLE=$(abspath $(BIN))/python -DPROFL_SANITIZE=ON
	touch $@

lint: $(STAMP) ## ruff, mypy --strict, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: $(STAMP) ## format all sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

wheel: $(STAMP) ## build the wheel for this machine and this Python into dist/
	$(BIN)/pip wheel --no-deps --no-build-isolation -w dist .

wheels: $(STAMP) ## build all wheels into dist/: x86-64 and 64-bit ARM (needs Debian's g++-aarch64-linux-gnu)
	$(BIN)/pip install --quiet --group wheels
	$(BIN)/python -m tools.cross.wheel -o dist

sdist: $(STAMP) ## pack the sources into dist/
	@mkdir -p dist
	$(BIN)/python -c "from scikit_build_core.build import build_sdist; print('dist/' + build_sdist('dist'))"

runner: $(STAMP) ## build profl-train, the static runner, into dist/ (x86-64 and 64-bit ARM)
	$(BIN)/python -m tools.cross.runner -o dist

data: $(STAMP) ## get Fashion-MNIST where Debian's package can be had
	@sh tools/get_fashion_mnist.sh data/fashion-mnist

# torch first and by its exact version, so that nothing behind it resolves another build. The native module is
# installed into the source tree as well, so that commands run from here find it.
$(STAMP): pyproject.toml $(NATIVE)
	@sh tools/check_host.sh $(PYTHON) $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "[1/4] pip"
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "[2/4] PyTorch 2.13.0$(if $(TORCH_INDEX), from TORCH_INDEX,$(TORCH_NOTE))"
	@$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	@echo "[3/4] ExecuTorch 1.5.1 and what builds the kernels"
	@$(BIN)/pip install --quiet executorch==1.5.1 'scikit-build-core>=0.11' 'nanobind>=2.4' 'cmake>=3.28' ninja
	@echo "[4/4] profl-edge itself: its kernels are compiled, which takes a minute or two"
	@$(BIN)/pip install --quiet --no-build-isolation -e '.[dev]'
	rm -f $(VENV)/.installed*
	touch $(STAMP)
