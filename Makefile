# `make lab` and `make test` set up all they need; `make help` lists the rest.
# Works with GNU make 3.81 and any POSIX shell. Settings are given as `make lab VENV=elsewhere`.

VENV ?= .venv
# A Python to use instead of the first fitting one found.
PYTHON ?=
# Asked first for torch where Linux has no NVIDIA driver: the package index's own wheel brings gigabytes of CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Free disk a set-up needs, in GB: with torch for the CPU, and with CUDA.
NEED_GB ?= 3
NEED_GB_CUDA ?= 12
# The thread count of stored outputs; the pages must pass with 1 and with 2.
THREADS ?= 2
# Tests run in so many processes of one thread each: two threads in one process leave a core idle half the time.
WORKERS ?= 2
LAB_ARGS ?=
TEST_ARGS ?=
NB ?= $(wildcard notebooks/*.ipynb)

PY = $(VENV)/bin/python
# Wheels only: nothing is compiled, and a missing wheel is said at once.
PIP = $(PY) -m pip --disable-pip-version-check install
WHEELS = $(PIP) --only-binary :all:
# What the notebooks and tests run under: no hub is asked, and a fixed number of threads.
FIXED = HF_HUB_OFFLINE=1 OMP_NUM_THREADS=$(THREADS)
PYTEST = HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS)
# A page's cells share a kernel, so a file stays in one process; the order is that of pyproject.toml.
BY_FILE = --dist loadfile --no-loadscope-reorder
# Jupyter starts as root, in a container say, only when told to; it answers on loopback alone.
AS_ROOT = $$(test "$$(id -u)" != 0 || echo --allow-root)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup lab test test-all check sync execute assets results translator masked-words story-gpt2 bench html versions FORCE

help: ## list the targets
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1 \2/p' Makefile | while read -r name what; do \
		printf '  %-10s %s\n' "$$name" "$$what"; done

setup: $(VENV)/.lab ## make the environment in .venv: packages, course_utils, kernel

lab: $(VENV)/.lab ## set up and open JupyterLab on the first notebook (LAB_ARGS=--no-browser …)
	$(PY) -m jupyterlab --ip=127.0.0.1 --ServerApp.root_dir=notebooks $(AS_ROOT) $(LAB_ARGS) \
		$(firstword $(wildcard notebooks/01_*.ipynb) notebooks)

test: $(VENV)/.test ## set up and run the unit tests and every notebook as a test (TEST_ARGS=-x …)
	$(PYTEST) $(BY_FILE) --nbval -m "not slow" $(TEST_ARGS)

test-all: test ## the same, then the long matrix marked slow
	$(PYTEST) --dist worksteal -m slow tests $(TEST_ARGS)

check: $(VENV)/.test ## in seconds: lint, formatting, and the form of every page
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest -q tests/test_notebooks.py tests/test_claims.py -k "not strict_outputs"

sync: $(VENV)/.lab ## refresh the notebooks' shown definitions, badges and setup cells from the package
	$(PY) -m course_utils.sync

execute: $(VENV)/.lab ## run the notebooks and store their outputs (NB=notebooks/01_….ipynb for one)
	COURSE_QUIET=1 $(FIXED) $(PY) -m nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.timeout=600 --ExecutePreprocessor.record_timing=False $(NB)

assets: $(VENV)/.lab ## fetch all data the notebooks use, ahead of a flight
	$(PY) -m course_utils.data --fetch

results: $(VENV)/.lab ## run again what takes longer than a page may, into data/results
	$(FIXED) $(PY) -m course_utils.results

bench: $(VENV)/.lab ## time the models beside libraries', into build/bench.json (BENCH_ARGS=NAME for one)
	$(FIXED) $(PY) tests/benchmarks/bench.py $(BENCH_ARGS)

translator: $(VENV)/.lab ## train notebook 03b's translator again, an hour of a core; stopped, it goes on where it was
	OMP_NUM_THREADS=1 $(PY) -m course_utils.translation

masked-words: $(VENV)/.lab ## train notebook 06's head for hidden words again, ten minutes of a core
	OMP_NUM_THREADS=1 $(PY) -m course_utils.bert

story-gpt2: $(VENV)/.lab ## train notebook 07's GPT-2 and an LSTM beside it again, three hours of two cores; stopped, it goes on
	OMP_NUM_THREADS=$(THREADS) $(PY) -m course_utils.stories

html: $(VENV)/.lab ## the course as static pages in build/html (NB=… for one)
	$(PY) -m course_utils.pages --output build/html $(NB)

# Without the pages, and without what holds of the pins alone.
UNIT_ARGS = tests -m "not slow and not browser" --ignore=tests/test_notebooks.py --ignore=tests/test_environment.py

versions: override VENV = build/versions/lowest
versions: ## run the unit tests on the oldest versions allowed, and on python3.12 and python3.13 where found
	@$(MAKE) VENV=$(VENV) $(PY)
	$(PIP) uv
	$(PY) -m uv pip install --upgrade --resolution lowest-direct --only-binary :all: --editable '.[test]'
	$(PYTEST) $(BY_FILE) $(UNIT_ARGS) $(TEST_ARGS)
	@for name in python3.12 python3.13; do \
		"$$name" -c 'import ensurepip, venv' 2>/dev/null || { echo "$$name: not found"; continue; }; \
		$(MAKE) test VENV=build/versions/$$name PYTHON=$$name TEST_ARGS='$(UNIT_ARGS) $(TEST_ARGS)' || exit 1; \
	done

# --- the environment -------------------------------------------------------------------------------------

# The stamp holds the checkout's folder: a virtual environment that was moved, or that another clone set up,
# is made anew.
MADE_FOR := $(shell read -r folder 2>/dev/null <"$(VENV)/.lab" && echo "$$folder")
ifneq ($(MADE_FOR),)
ifneq ($(MADE_FOR),$(CURDIR))
$(PY): FORCE
endif
endif

# Sets $$python to the first Python that fits, or says in one sentence why there is none.
# Candidates are run, not looked up: a pyenv shim may exist and still fail. 3.11 comes first because the stored
# outputs were made with it.
define FIND_PYTHON
set -- python3.11 python3.12 python3.13 python3 python; \
if [ -n "$(PYTHON)" ]; then set -- "$(PYTHON)"; fi; \
python=; bare=; unfit=; \
for name; do \
	version=$$("$$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	case $$version in \
		3.11|3.12|3.13) ;; \
		[012].*|3.[0-9]|3.10) unfit="$$unfit, but $$name is $$version (too old)"; continue ;; \
		*) unfit="$$unfit, but $$name is $$version (too new)"; continue ;; \
	esac; \
	if "$$name" -c 'import ensurepip, venv' 2>/dev/null; then python=$$name; break; fi; \
	bare="$$version ($$name)"; bare_version=$$version; \
done; \
if [ -n "$$python" ]; then :; \
elif [ -n "$$bare" ]; then \
	$(call FAIL,Python $$bare is here but lacks its venv module; on Debian or Ubuntu install it with: apt install python$$bare_version-venv); \
elif [ -n "$$unfit" ]; then \
	$(call FAIL,this needs Python 3.11$(COMMA) 3.12 or 3.13$$unfit; install one of them$(COMMA) or name it with PYTHON=/path/to/python3.11); \
elif [ -n "$(PYTHON)" ]; then \
	$(call FAIL,PYTHON=$(PYTHON) does not run; give the path of a Python 3.11$(COMMA) 3.12 or 3.13); \
else \
	$(call FAIL,no Python was found; install Python 3.11$(COMMA) 3.12 or 3.13$(COMMA) or name it with PYTHON=/path/to/python3.11); \
fi
endef

COMMA := ,
FAIL = { echo "make setup: $(1)." >&2; exit 1; }
# $(call SPACE,python,GB): exits with one sentence where the disk has less room than that for the environment.
SPACE = "$(1)" -c 'import shutil, sys; free = shutil.disk_usage("$(VENV)").free / 1e9; \
	sys.exit("make setup: this needs $(2) GB of disk, and $(VENV) has %.1f GB free." % free if free < $(2) else 0)'

# Without --clear a link to a Python that is gone would stay.
$(PY):
	@$(FIND_PYTHON); \
	mkdir -p "$(VENV)" && $(call SPACE,$$python,$(NEED_GB)) || exit 1; \
	clear=; if [ -f "$(VENV)/pyvenv.cfg" ]; then clear=--clear; fi; \
	echo "Making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $$clear "$(VENV)"

# torch as pinned, before all else: the one installed, else a wheel pip finds locally, else on Linux without an
# NVIDIA driver the one on PyTorch's CPU index, if it answers within seconds, else what requirements.txt brings.
define INSTALL_TORCH
pin=$$(sed -n 's/^\(torch==[0-9.]*\).*/\1/p' requirements.txt); \
installed() { $(PY) -c 'import sys; from importlib.metadata import version; \
	sys.exit("torch==" + version("torch").split("+")[0] != sys.argv[1])' $$pin 2>/dev/null; }; \
wants_cpu() { ! [ -e /proc/driver/nvidia/version ] && ! nvidia-smi -L >/dev/null 2>&1; }; \
from_cpu_index() { \
	echo "Asking $(TORCH_INDEX) for torch"; \
	export PIP_INDEX_URL="$(TORCH_INDEX)" PIP_EXTRA_INDEX_URL="$(TORCH_INDEX)"; \
	$(PY) -m pip --timeout 5 --retries 1 index versions torch >/dev/null 2>&1 && $(WHEELS) --no-deps $$pin; }; \
if installed || $(WHEELS) --no-deps --no-index $$pin 2>/dev/null; then :; \
elif [ "$$(uname -s)" != Linux ]; then :; \
elif wants_cpu && (from_cpu_index); then :; \
else \
	echo "torch comes from the package index, with CUDA: gigabytes"; \
	$(call SPACE,$(PY),$(NEED_GB_CUDA)); \
fi
endef

$(VENV)/.lab: requirements.txt constraints.txt pyproject.toml $(PY)
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip --default-pip
	@$(INSTALL_TORCH)
	@$(WHEELS) -r requirements.txt || $(NOT_INSTALLED)
	@$(PIP) --no-deps --editable . || $(NOT_INSTALLED)
	@$(PY) -m ipykernel install --sys-prefix >/dev/null
	@echo "$(CURDIR)" >$@

$(VENV)/.test: $(VENV)/.lab tests/requirements.txt
	@$(WHEELS) -r tests/requirements.txt || $(NOT_INSTALLED)
	@touch $@

NOT_INSTALLED = $(call FAIL,pip could not install the packages$(COMMA) for the reason above: no network$(COMMA) no room$(COMMA) or no wheel of a pinned version for this machine)
