# Needs Python >= 3.10 and make; everything else is set up in .venv. `make demo` renders the demo film.
PYTHON ?= python3
TORCH := torch==2.13.0
# For the tests, which run the kernels in its interpreter. There is no Triton on PyPI for other systems.
# 3.8.0 is the last one for Python 3.10.
TRITON := $(if $(filter Linux,$(shell uname)),"triton==3.9.0; python_version >= '3.11'" "triton==3.8.0; python_version < '3.11'")
VENV := .venv
# Two processes, a file of tests each: CI has two cores, and a test has one thread. In order, since the longest file comes early.
WORKERS := --numprocesses 2 --dist loadfile --no-loadscope-reorder
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-fast test-comfy verify check bench clean

demo: $(VENV)/.cli
	mkdir -p output
	$(BIN)/longlive render longlive_core/assets/demo.txt -o output/demo.mp4 --contact-sheet

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(WORKERS) -m "not comfy"

# The tests that take less than a second each: about a minute on two cores.
test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest $(WORKERS) -m "not comfy and not slow"

# Agreement with the recorded runs of the reference that every clone has.
verify: $(VENV)/.cli
	$(BIN)/longlive verify

# Against a real ComfyUI, in COMFYUI_PATH or ~/ComfyUI: see CONTRIBUTING.md.
test-comfy: $(VENV)/.comfy
	$(BIN)/python -m pytest -m comfy

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m pyright --pythonpath $(BIN)/python

bench: $(VENV)/.cli
	$(BIN)/python tests/benchmarks/bench_render.py

clean:
	rm -rf $(VENV) output

# torch goes in first, pinned, so that nothing after it can choose another build.
$(VENV)/.cli: pyproject.toml requirements.txt
	@$(PYTHON) -c "import sys; v = sys.version_info; sys.exit(v < (3, 10) and f'LongLive needs Python 3.10 or newer; $(PYTHON) is {v[0]}.{v[1]}. Try: make PYTHON=python3.12')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install "pip>=23.1" $(TORCH)
	$(PIP) install $(TORCH) --editable ".[cli]"
	touch $@

$(VENV)/.dev: $(VENV)/.cli
	$(PIP) install $(TORCH) $(TRITON) --editable ".[cli,dev,eval]"
	touch $@

$(VENV)/.comfy: $(VENV)/.dev
	$(PIP) install $(TORCH) --editable ".[cli,dev,comfy-tests]"
	touch $@
