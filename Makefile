# Two commands: `make quickstart` for a first result, `make test` for the tests. Both make the environment they need.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test lint tables clean

quickstart: $(VENV)/.installed-cli
	$(BIN)/python -m benchmarks run split_digits

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

tables: $(VENV)/.installed-cli
	$(BIN)/python -m benchmarks table paper_repro/results --readme README.md
	for claim in condensates growth plasticity repair; do $(BIN)/python -m benchmarks table paper_repro/$$claim/results \
		--readme paper_repro/$$claim/README.md || exit 1; done
	$(BIN)/python -m paper_repro.plasticity.leads
	$(BIN)/python -m paper_repro.plasticity.together

# One environment; the development extras contain those of the command line.
$(VENV)/.installed-%: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "neuroml needs Python 3.11 or later; give it with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist *.egg-info runs
