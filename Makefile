# `make demo` and `make test` are all a fresh machine needs: set-up into .venv, then the demo, or the
# checks and every test.
# A plain `torch` may bring gigabytes of CUDA; TORCH_INDEX=URL chooses another build, e.g. the
# CPU or CUDA index that pytorch.org names.
PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
WORKERS ?= 2
BIN := .venv/bin

.PHONY: demo test check fmt setup clean

demo: setup
	$(BIN)/rtune demo

test: check
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not gpu and not network"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: .venv/.ready

.venv/.ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf .venv dist build runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
