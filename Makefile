# Each target sets up all it needs by itself, in the folder .venv.
PYTHON ?= python3
BIN := .venv/bin
# Two processes of one thread each are faster than one of two, and numbers do not depend on the machine's cores.
TEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadscope --durations 10

help:
	@echo "make course   run every lesson, and see what each reached"
	@echo "make lab      open the lessons in JupyterLab"
	@echo "make test     run all tests"
	@echo "make bench    measure what the course promises about speed and accuracy"
	@echo "make gpu      the same on a machine with an NVIDIA GPU, in at most twenty minutes"
	@echo "make editions student, solution and nbgrader editions of the lessons, for a class"
	@echo "make slides   the lessons as slides"
	@echo "make site     the lessons as a web site"
	@echo "make clean    remove what the targets above made"

course: .venv/lab.installed
	$(BIN)/python -m tools.course notebooks build/course

lab: .venv/lab.installed
	$(BIN)/jupyter lab --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
		notebooks/00_start_here.ipynb

lint: .venv/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: .venv/test.installed lint
	$(TEST) --cov=miniclip_utils --cov-fail-under=90 --ignore tests/test_browser.py tests
	$(TEST) tests/test_browser.py notebooks

editions: .venv/teach.installed
	$(BIN)/python -m tools.editions notebooks build/editions

slides: .venv/teach.installed
	$(BIN)/python -m tools.slides notebooks build/slides

site: .venv/teach.installed
	$(BIN)/python -m tools.site . build/site

bench: .venv/test.installed
	$(BIN)/python -m tools.bench

gpu: .venv/lab.installed
	$(BIN)/python -m tools.gpu build/gpu

clean:
	rm -rf .venv build

.venv/%.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --python $(BIN)/python --editable ".[$*]"
	touch $@

.PHONY: help course lab lint test editions slides site bench gpu clean
