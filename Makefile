# `make demo` and `make test` are all that a fresh machine needs: each sets up .venv, then runs the
# demo, or the checks and the tests. `make bench DATA=FOLDER` measures speed on real examples in
# 20 minutes; without DATA, it measures on the miniature's examples alone. BASE=FOLDER tunes a base
# model of yours too, whole and with LoRA. `make real` tunes a real base: Gemma 3 270M, or
# BASE=FOLDER, FILE.gguf or HUB_ID; on Alpaca from the hub or a folder of copies (DATA=FOLDER), or on
# rows of your own (DATA=FILE, with instructions and responses).
# A plain `torch` may bring gigabytes of CUDA. TORCH_INDEX=URL chooses another build, for example
# the CPU or CUDA index that pytorch.org names.
PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
WORKERS ?= 2
DATA ?= $(RESPONSE_TUNING_DATA)
BASE ?=
BIN := .venv/bin
# To compile all 24,000 files takes one core 80 s. Python compiles what it imports, a small part.
INSTALL := $(BIN)/pip install --quiet --no-compile
# Outside .venv, so that nothing finds TRL but benchmarks, and the test that compares losses with it.
PEERS := build/bench
LATEST := benchmarks/results/latest.csv
TOKENIZER = $(DATA)/tokenizers/gpt_neox_20b
STORIES = $(DATA)/tiny_lm_stories260k/hf

# llama.cpp's converter has a `gguf` of its own, so it lies outside .venv as well.
CACHE := $(CURDIR)/build/cache

# `make real` downloads its base into this folder, unless BASE names another.
REAL := build/real
REAL_RUN ?= runs/real$(if $(BASE),-$(notdir $(BASE:/=)))
REAL_FLAGS ?=

# What the release is called where it is published. Without them, `make release` is a trial.
REPOSITORY ?=
DOI ?=
RELEASE_DEMO ?=

.PHONY: demo real real-cost test tests test-exhaustive docs release bench check lint types fmt setup clean

demo: setup
	$(BIN)/rtune demo

# One process: two of them tune at once, and need twice the memory.
real: real-cost setup $(if $(BASE),,$(REAL)/.ready)
	$(BIN)/python examples/real_base.py $(if $(BASE),--base $(BASE)) $(if $(DATA),--data $(DATA))
	$(if $(BASE),$(BIN)/rtune run $(REAL)/first.yaml --dry-run)
	$(BIN)/rtune run $(REAL)/first.yaml --out $(REAL_RUN) $(REAL_FLAGS)

real-cost:
	@echo "make real: set-up, $(if $(BASE),a dry run,a download of 238 MB), then five models answer up to 108 prompts each"
	@echo "$(if $(BASE),The dry run says what that takes if $(BASE) is on this machine.,That takes about 30 minutes of one core with bfloat16 and 60 without; 6 GB of memory; 1.6 GB of disk.)"
	@echo "Stop it at any time: the same command goes on."

# mypy takes one core for a minute; beside the tests, neither core is idle.
test: lint
	$(MAKE) --no-print-directory -j 2 types tests

tests: setup $(CACHE)/.ready $(PEERS)/.ready
	RESPONSE_TUNING_CACHE=$(CACHE) $(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not gpu and not network and not exhaustive"

# A crash at every file operation, 3,000 faulty requests, the wheel in an empty environment (which
# downloads it): over an hour, so it runs at night.
test-exhaustive: setup
	$(BIN)/pytest -m "exhaustive and not gpu" --every-crash

# Warnings are errors: a broken link stops the build. Needs no network.
docs: setup
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

# Builds sdist and wheel, checks them, and runs the demo from the wheel in an empty environment.
# RELEASE_DEMO="--set seeds=[0] --set grade.limit=4" cuts the demo down.
release: setup
	PYTHON=$(BIN)/python TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" REPOSITORY="$(REPOSITORY)" \
		DOI="$(DOI)" .ci/release $(RELEASE_DEMO)

bench: setup $(PEERS)/.ready
	PYTHONPATH=$(PEERS) $(BIN)/python benchmarks/finetune_cpu.py $(if $(DATA),--data $(DATA)) \
		$(if $(BASE),--base $(BASE))
	$(BIN)/python benchmarks/start.py --repeats 5 --model miniature --out $(LATEST)
ifneq ($(strip $(DATA)),)
	$(BIN)/python benchmarks/generate.py --data $(DATA) --tokenizer $(TOKENIZER) \
		--prompts 96 --max-new-tokens 128 --repeats 1 --out $(LATEST)
	$(BIN)/python benchmarks/generate.py --data $(DATA) --model $(STORIES) --name stories-260k \
		--prompts 96 --max-new-tokens 200 --repeats 3 --out $(LATEST)
	$(BIN)/python benchmarks/data_size.py --data $(DATA) --tokenizer $(TOKENIZER) \
		--rows 20000 --out $(LATEST)
endif
	$(BIN)/python benchmarks/table.py $(LATEST)

check: lint types
	$(BIN)/pytest -q tests/test_architecture.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

fmt: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: .venv/.ready

.venv/.ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(INSTALL) $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(INSTALL) -r requirements.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q src  # an import would compile it otherwise
	touch $@

$(PEERS)/.ready: .venv/.ready requirements-bench.txt
	$(INSTALL) --upgrade --no-deps --target $(PEERS) -r requirements-bench.txt
	touch $@

$(CACHE)/.ready: .venv/.ready
	RESPONSE_TUNING_CACHE=$(CACHE) $(BIN)/python -c \
		"from response_tuning.serve.export import converter; converter.install()"
	touch $@

$(REAL)/.ready: .venv/.ready requirements-real.txt
	$(INSTALL) --upgrade --no-deps --target $(REAL)/packages -r requirements-real.txt
	touch $@

clean:
	rm -rf .venv dist build runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
