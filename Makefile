# make demo: install, run notebooks 00 to 04 on the embedded digits (make demo-all: all of them). make test: install, pytest and nbval. make docs: the site. make bench: timings.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# the stored outputs were made from an empty runs folder: nbval starts from one as well; its times are guards against hanging
NBVAL := --nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval.cfg --nbval-cell-timeout 1200 --nbval-kernel-startup-timeout 1200 -p no:cacheprovider

.PHONY: demo demo-00 demo-01-02 demo-03 demo-04 demo-all test nbval-first nbval-second bench lint tables docs notebooks package figures gallery clean

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "yoco needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $(STAMP)

# two runs at once, each on one core: 00 needs no other notebook, and 03 and 04 read what 01 and 02 made
YOCO := OMP_NUM_THREADS=1 $(BIN)/python -m yoco
DEMO := -p dataset digits -p run_dir runs/demo
demo: $(STAMP)
	$(MAKE) --no-print-directory -j 2 demo-00 demo-01-02
	$(MAKE) --no-print-directory -j 2 demo-03 demo-04

demo-01-02 demo-04: $(STAMP)
	@$(YOCO) run $(subst -, ,$(@:demo-%=%)) $(DEMO)

demo-00: DEMO :=  # it has no parameters
# silent until they end: the progress line is the other run's
demo-00 demo-03: $(STAMP)
	@mkdir -p runs
	@$(YOCO) run $(@:demo-%=%) $(DEMO) > runs/$@.log; status=$$?; grep ' -> ' runs/$@.log; exit $$status

# every notebook, in the same folder: what `make demo` made is read
demo-all: demo
	$(BIN)/python -m yoco run 05 06 07 $(DEMO)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadscope --durations=15
	rm -rf runs/nbval
	$(MAKE) --no-print-directory -j 2 nbval-first nbval-second

# two lots at once, each about as long and with a folder of its own; the notebooks on the digits read what the one before made
nbval-first: LOT = 01_condensation 04_pruning 05_ablations
nbval-second: LOT = 00_quickstart 02_scores 03_class_balance 06_noise 07_gallery
nbval-first nbval-second: $(STAMP)
	YOCO_RUNS=$(CURDIR)/runs/nbval/$@ OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -q $(NBVAL) $(LOT:%=notebooks/%.ipynb)

# ours against the literal implementation: a table, and runs/bench.json; then what a step costs, and the plan for ImageNet-1K from that
bench: $(STAMP)
	$(BIN)/python -m benchmarks.bench
	rm -f runs/bench/costs.csv
	$(BIN)/python -m benchmarks.costs --out runs/bench
	$(BIN)/python -m benchmarks.imagenet1k --out runs/bench

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# what is made from the declared parameters (the options that --help lists, the notebooks' parameter cells), and the tables of README and docs/
tables: $(STAMP)
	$(BIN)/python -m tools.generate

# the documentation's site, in build/site
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	touch $@

# remake the notebooks' stored outputs from an empty runs folder
notebooks: $(STAMP)
	rm -rf runs/notebooks
	YOCO_RUNS=$(CURDIR)/runs/notebooks $(BIN)/python -m tools.notebooks

# the sdist and the wheel, as they would be uploaded
package: $(STAMP)
	rm -rf dist
	$(BIN)/python -m pip install --quiet build twine
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

# what the notebooks made of a run, into the repository: make figures RUN=runs/cifar10 FIGURES=figures/cifar10
RUN ?= runs/cifar10
FIGURES ?= figures/cifar10
MADE := table.csv table.md table2.csv table2.md beside_paper.csv paired.csv accuracy_by_budget.png condensation.csv condensed.png loss.png \
	multi_formation.png scores.png rank_correlations.png class_balance.csv class_balance_1.png imbalance.png kept_yoco_1.png kept_el2n_1.png \
	noise.csv noise.md noise_detection.csv noise_gains.csv $(addprefix noise_,$(addsuffix .png,kinds kept_yoco kept_el2n precision detection accuracy before_condensing repairs)) \
	ablations.csv ablations.md agreement.csv overlap.csv $(addprefix ablation_,$(addsuffix .png,output epochs_read rules record_on condensation network agreement))
figures:
	mkdir -p $(FIGURES)
	for name in $(MADE); do if [ -e $(RUN)/$$name ]; then cp $(RUN)/$$name $(FIGURES)/; fi; done

# the gallery of docs/explore.md, by its notebook
gallery: $(STAMP)
	$(BIN)/python -m yoco run 07 -p run_dir runs/gallery
	mkdir -p figures/gallery
	cp runs/gallery/gallery/*.png figures/gallery/

clean:
	rm -rf $(VENV) runs build *.egg-info
