# `make run` measures on this machine; `make test` checks the project. Each does all its own set-up.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN = $(VENV)/bin

.PHONY: run test help
.DEFAULT_GOAL := help

help: ## print this
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

run: $(VENV)/.run ## install into $(VENV), run the default experiment, leave its report in out/
	$(BIN)/tunemark run benchmarks/default.toml -o out

test: $(VENV)/.test ## install into $(VENV), then lint, types and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q

# An interpreter that has a torch already (a vendor's build above all) keeps it: the environment then sees the
# interpreter's own packages, and the torch pin becomes the version that is there.
$(VENV)/constraints.txt: $(CONSTRAINTS)
	@if version=$$($(PYTHON) -c "import importlib.metadata as m; print(m.version('torch'))" 2>/dev/null); then \
	    echo "keeping torch $$version of $(PYTHON)"; \
	    $(PYTHON) -m venv --system-site-packages $(VENV); \
	    { grep -v '^torch==' $(CONSTRAINTS); echo "torch==$$version"; } > $@; \
	else \
	    $(PYTHON) -m venv $(VENV); cp $(CONSTRAINTS) $@; \
	fi

$(VENV)/.run: pyproject.toml $(VENV)/constraints.txt
	$(BIN)/python -m pip install -q -c $(VENV)/constraints.txt -e .
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/constraints.txt
	$(BIN)/python -m pip install -q -c $(VENV)/constraints.txt -e '.[test]'
	@touch $@ $(VENV)/.run
