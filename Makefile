# A target that needs the virtual environment makes it and installs into it first.
VENV ?= .venv
PYTHON ?= python3
# The version of torch that the project is tested with. torch-sparse (make sparse) must be built anew
# for another version. On a machine with a GPU: make install TORCH=torch
TORCH ?= torch==2.13.0
CONFIG ?= configs/quickstart.yaml

BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install sparse fit serve test fuzz fuzz-api kills lint bench bench-ranking bench-serving tensorboard clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

install: $(VENV)/installed  ## make the virtual environment and install lgcn with its sample data

# torch comes first, so that nothing else chooses another.
$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --upgrade pip setuptools wheel
	$(BIN)/pip install '$(TORCH)'
	$(BIN)/pip install -e '.[samples]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install -e '.[test]'
	touch $@

sparse: $(VENV)/installed-sparse  ## build torch-sparse for --model.propagation.engine sparse_tensor (ten minutes or more)

# --no-build-isolation: torch-sparse compiles against the installed torch.
$(VENV)/installed-sparse: $(VENV)/installed
	$(BIN)/pip install --no-build-isolation -e '.[sparse]'
	touch $@

$(VENV)/installed-serve: $(VENV)/installed
	$(BIN)/pip install -e '.[samples,serve]'
	touch $@

fit: $(VENV)/installed  ## train a model: CONFIG=FILE (default: configs/quickstart.yaml)
	$(BIN)/lgcn fit --config $(CONFIG)

serve: $(VENV)/installed-serve  ## show the newest run's recommendations at http://127.0.0.1:8000
	$(BIN)/lgcn serve

# worksteal keeps neighbours together: they share models, which each process trains once.
test: $(VENV)/installed-test  ## install what the tests need and run them, on all cores
	$(BIN)/pytest -n auto --dist worksteal

fuzz: $(VENV)/installed-test  ## give the readers 2,000 made-up files of each of six kinds, others each time (15 minutes)
	LGCN_FUZZ=2000 $(BIN)/pytest tests/fuzz

$(VENV)/installed-fuzz: $(VENV)/installed-test
	$(BIN)/pip install -e '.[fuzz]'
	touch $@

fuzz-api: $(VENV)/installed-fuzz  ## ask the served API 5,000 questions made up from its own description (4 minutes)
	$(BIN)/pytest -W ignore tests/serving/fuzz_api.py

lint: $(VENV)/installed-test  ## check style and types (ruff, mypy)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

kills: $(VENV)/installed-test  ## kill training at hundreds of moments, resume it, and compare (an hour)
	$(BIN)/python tests/kills/kills.py

bench: $(VENV)/installed-test  ## time training steps beside the notebook's and PyG's, and for growing data (15 minutes)
	$(BIN)/python tests/benchmarks/training_step.py
	$(BIN)/python tests/benchmarks/sweep.py

bench-ranking: $(VENV)/installed-test  ## time BPR steps beside the paper's code, and an evaluation, on Gowalla in LGCN_DATA
	$(BIN)/python tests/benchmarks/ranking.py

bench-serving: $(VENV)/installed-test  ## time starts of lgcn recommend and requests to lgcn serve: CKPT=PATH
	$(BIN)/python tests/benchmarks/serving.py $(CKPT)

tensorboard: $(VENV)/installed  ## show the curves of all runs at http://localhost:6006
	$(BIN)/tensorboard --logdir runs

clean:  ## remove the virtual environment and caches; runs and data stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
