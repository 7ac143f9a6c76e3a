# Few verbs. Everything is installed into .venv; nothing else on the machine changes.
#   make quickstart   set up, train on the real data, judge        make test   set up, run the tests
#   make setup TORCH=gpu                                           torch with CUDA (gigabytes)
#   make package      wheel and source distribution, tried out     dist/
#   make docs         the documentation, with its tutorials run    docs/_build/html/index.html
PYTHON ?= python3
TORCH ?= cpu
TORCH_VERSION ?= 2.13.0
BIN := .venv/bin

.PHONY: setup quickstart test check package docs bench clean

setup: .venv/ready

.venv/ready: pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed, $$($(PYTHON) --version 2>&1) was found: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PYTHON) tools/install_torch.py $(BIN)/python $(TORCH) $(TORCH_VERSION)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[all,dev,bench,docs,openvino,postgres,tensorboard]"
	@touch $@

quickstart: setup
	$(BIN)/brainstage quickstart

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 --durations 10

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/question.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/check-jsonschema --builtin-schema vendor.readthedocs .readthedocs.yaml

package: setup
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python tools/smoke_test.py dist

docs: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -n -W --keep-going -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: setup
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf .venv build dist docs/_build docs/tutorials docs/reference/commands docs/reference/model-cards
