# Each target works from a bare checkout; see README.md. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
CODE := gateway unsubscribe_site tests bench docs

.PHONY: help run demo test torture bench lint types fmt requirements docs clean peers

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do printf '%-14s%s\n' "$$name" "$$what"; done

run: .venv/installed ## make what is missing (config.toml, keys, logins) and start everything on loopback
	@test -e config.toml || $(BIN)/assent init
	@$(BIN)/assent serve

demo: .venv/installed ## play the whole story in a scratch folder; exits 0 only if every step came out
	@$(BIN)/assent demo

test: .venv/dev peers ## everything that CI runs, beside real peers, three files at a time
	$(BIN)/pytest --numprocesses 3 --dist loadfile

torture: .venv/dev peers ## the long sizes of the fault and abuse tests; what they find is written to bench/RESULTS.md
	ASSENT_TORTURE=yes \
	ASSENT_KILLS=200 \
	ASSENT_POWER_CUTS=300 \
	ASSENT_RESTARTS=100 \
	ASSENT_MIGRATIONS=50 \
	ASSENT_SOAK_SECONDS=7200 ASSENT_SOAK_GROWTH=1.05 \
	ASSENT_READER_SECONDS=600 \
	ASSENT_INTERLEAVINGS=10000 \
	ASSENT_LOCK_SECONDS=60 ASSENT_STALL=0.25 \
	ASSENT_JUMPS="+1h -1h +1d -1d +5y" \
	ASSENT_ABUSE=1 \
	ASSENT_LARGE_RECIPIENTS=1000 \
	ASSENT_RATE_SECONDS=30 \
	ASSENT_FAULT_SECONDS=30 \
	ASSENT_FAULT_MESSAGES=20 \
	ASSENT_BACKLOG=10000 \
	ASSENT_MAILS=10000 \
	ASSENT_QUEUED=1000000 \
	ASSENT_SIMULATED=1000 \
	ASSENT_MODEL_STEPS=1000000 \
	$(BIN)/pytest tests/crash tests/abuse tests/test_blackbox_queue.py tests/test_blackbox_clock.py tests/test_blackbox_locks.py tests/test_blackbox_large.py \
	  tests/test_blackbox_relaying.py tests/test_blackbox_faults.py tests/test_blackbox_delivery.py tests/test_blackbox_accounting.py tests/test_blackbox_simulate.py \
	  tests/test_model_check.py

bench: .venv/dev peers ## messages a second beside real peers, written to bench/RESULTS.md
	$(BIN)/python -m bench --write

lint: .venv/dev ## ruff: mistakes and layout
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: .venv/dev ## mypy --strict on gateway/ and unsubscribe_site/
	$(BIN)/mypy

fmt: .venv/dev ## write the code as ruff does
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

requirements: .venv/dev ## every requirement, its tests, whether they passed (ROWS="UNS DKIM"; RUN=1 runs them first)
	@$(BIN)/python -m tests.requirements_table $(ROWS) $(if $(RUN),--run)

docs: .venv/dev ## write the generated documents anew
	@$(BIN)/python -m docs.generate

clean: ## remove what was made here, except config.toml and var/
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info tests/peers/node_modules bench/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

peers:
	@tests/peers/install.sh

# What the program needs, then what its tests need besides; both are installed again when setup.cfg changes.
.venv/installed: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/dev: .venv/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Assent needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12" >&2; \
		exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
