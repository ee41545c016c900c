# Everything a newcomer runs. Each target sets up what it needs.
SHELL := /bin/bash
export UV_PYTHON_DOWNLOADS ?= never
RUN := uv run --frozen

.PHONY: demo demo-stop test check format bench soak setup
demo: setup
	$(RUN) berth demo

demo-stop: setup
	$(RUN) berth demo --stop

test: setup
	$(RUN) berth sandbox install
	$(RUN) pytest $(ARGS)

check: setup
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) lint-imports

format: setup
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

bench: setup
	$(RUN) berth sandbox install
	$(RUN) python -m tests.bench $(ARGS)

soak: setup
	$(RUN) berth sandbox install
	BERTH_SOAK=1 $(RUN) pytest tests -m "cluster" $(ARGS)

setup:
	@command -v uv >/dev/null || python3 -m pip install --quiet --root-user-action=ignore uv
	@uv sync --frozen --quiet
