# Everything a newcomer runs. Each target sets up what it needs.
SHELL := /bin/bash
export UV_PYTHON_DOWNLOADS ?= never
UV := $(shell scripts/setup.sh)
$(if $(UV),,$(error the set-up failed; the reason stands above))
RUN = "$(UV)" run --frozen
ROUNDS ?= 10
HISTORIES ?= 1000

.PHONY: demo demo-stop test check format bench soak
demo:
	$(RUN) berth demo

demo-stop:
	$(RUN) berth demo --stop

test:
	$(RUN) berth sandbox install
	$(RUN) pytest $(ARGS)

check:
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) lint-imports

format:
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

bench:
	$(RUN) berth sandbox install
	$(RUN) python -m tests.bench $(ARGS)

# Random histories of subscriptions; then kills, outages and replays, over and over: ROUNDS=100 make soak
soak:
	$(RUN) berth sandbox install
	BERTH_HISTORIES=$(HISTORIES) $(RUN) pytest tests/simulation
	for round in $$(seq $(ROUNDS)); do \
	  $(RUN) pytest tests/e2e/test_crashes.py tests/e2e/test_exactly_once.py tests/e2e/test_api_server_outage.py || exit 1; \
	done
