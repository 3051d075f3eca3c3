# make demo: install, run notebooks 01-04 on the embedded digits. make test: install, pytest and nbval. make bench: timings.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# the stored outputs were made from an empty runs folder: nbval starts from one as well
NBVAL := --nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval.cfg --nbval-cell-timeout 300 -p no:cacheprovider

.PHONY: demo test bench lint notebooks clean

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "yoco needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m yoco run -p dataset digits -p run_dir runs/demo

test: $(STAMP)
	$(BIN)/python -m pytest -q
	rm -rf runs/nbval
	YOCO_RUNS=$(CURDIR)/runs/nbval $(BIN)/python -m pytest -q $(NBVAL) notebooks

# ours against the literal implementation: a table, and runs/bench.json
bench: $(STAMP)
	$(BIN)/python -m benchmarks.bench

lint: $(STAMP)
	$(BIN)/ruff check .

# remake the notebooks' stored outputs from an empty runs folder
notebooks: $(STAMP)
	rm -rf runs/notebooks
	YOCO_RUNS=$(CURDIR)/runs/notebooks $(BIN)/jupyter nbconvert --to notebook --execute --inplace notebooks/*.ipynb

clean:
	rm -rf $(VENV) runs *.egg-info
