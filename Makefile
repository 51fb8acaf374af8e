# PYTHON is the interpreter of the environment in which fastrnn is installed.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)

.PHONY: help build test cases slow fuzz coverage mutants bench report lint format types check dist ci clean

help:  ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

build:  ## compile the Cython kernels in place, or fail
	FASTRNN_CYTHON=1 $(PYTHON) -m pip install --no-deps -e .

test:  ## the tests, on two cores
	$(PYTHON) -m pytest -n 2

cases:  ## the tests on every case
	$(PYTHON) -m pytest --all-cases

slow:  ## the tests, long ones and real installations included
	$(PYTHON) -m pytest --slow

fuzz:  ## call the public API at random under sanitizers, until Ctrl-C
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(PYTHON) testing/sanitized.py "$$folder/fastrnn" $(PYTHON) testing/fuzz_api.py --seconds inf \
		--seed $${SEED:-$$(date +%s)}

coverage:  ## branches of the Python code and lines of the C code that the tests reach
	$(PYTHON) testing/covered.py

mutants:  ## how many small changes of the Python code the tests notice, on a sample; an hour
	$(PYTHON) testing/mutants.py

bench:  ## the short selection of the benchmarks
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PYTHON) -m pytest benchmarks

report:  ## run the benchmarks and rewrite docs/benchmarks.md and the README's figures
	$(PYTHON) benchmarks/report.py

lint:  ## style and spelling
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m codespell_lib

format:  ## rewrite the files in the one style
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types:  ## types, in a regular installation: mypy sees less of an editable one
	.ci/run types

check: lint types test  ## what to run before a commit

dist:  ## sdist and wheel, checked
	rm -rf build dist
	$(PYTHON) -m build
	$(PYTHON) -m twine check --strict dist/*

ci:  ## what continuous integration runs
	.ci/run

clean:  ## remove what the other targets made
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f kernels/*.so kernels/*.pyd kernels/cython_kernels.c kernels/build_info.json
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
