# Everything starts here: `make demo` and `make test` need only Python 3.11 (or newer), make and git.
#
#   make demo     several simulated nights of the real job, in ./demo; no key, no network
#   make test     the tests
#   make chaos    the crash campaign of RELIABILITY.md, about an hour (fewer trials: make chaos TRIALS=400 STARTS=12)
#   make mutants  which small changes of the code about contacts, the lock, the brakes and secrets would no test notice (GROUP=lock: one group)
#   make look     the page in a real Chromium, the workbook and CSV files in a real LibreOffice; it says what it needs (LOOK_OPTIONS='--only office')
#   make example  the example web application over the stand-in, to try by hand
#   make example-check  the same driven in Chromium: every answer, by modal and by hosted page, then a search for secrets (part of make look)
#   make deploy-check  cron/ before a real cron daemon, systemd and the Kubernetes schemas; says what it needs (root, Debian's cron and systemd)
#   make month    a month of simulated nights whose reports are all lost and made again, about two minutes
#   make nights   forty nights over 5,000 accounts, judged by what customers and banks really did, some minutes (NIGHTS_OPTIONS="--seed 2")
#   make model    the sequences of RELIABILITY.md, over an hour (fewer: make model SEQUENCES=100)
#   make bench    the whole night beside a plain script on the same libraries (BENCH_OPTIONS="--accounts 1000000 --ledger postgresql")
#   make bench-reconcile  stored nights reconciled at once and in parts (RECONCILE_OPTIONS="--accounts 10000000 --ways parts")
#   make check    style, formatting, types and import rules
#   make fix      mend what style and formatting can mend by themselves
#   make columns write the report columns and the glossary into the README
#   make sandbox  ask Stripe's sandbox for what STRIPE.md says, with RELINK_SANDBOX_KEY (a test key), and keep what it answered
#   make behaviours  write the table of Stripe's behaviours into STRIPE.md
#   make lock     choose newer versions of what the project uses (needs uv)
#
# PYTHON=/path/to/python chooses the interpreter that .venv is made with.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
TEST_WORKERS ?= auto
DEMO_OPTIONS ?=
LOOK_OPTIONS ?=
BENCH_OPTIONS ?=
NIGHTS_OPTIONS ?=
TRIALS ?= 10000
STARTS ?= 200
SEQUENCES ?= 2000
STEPS ?= 50
MODEL_SEED ?= 1

PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python3.14; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; done)

.DEFAULT_GOAL := help
.PHONY: help install demo test chaos mutants model month nights look example example-check deploy-check bench bench-reconcile check fix columns sandbox behaviours lock

help:
	@sed -n '1,/^$$/s/^# \{0,3\}//p' Makefile

install: $(INSTALLED)

# Installed anew only when the lock or the project's own metadata changed. The stamp comes last, so that an installation that broke off
# is taken up again.
$(INSTALLED): requirements.lock pyproject.toml
	@test -x $(BIN)/python || test -n "$(PYTHON)" || \
		{ echo "Python 3.11 or newer was not found; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/relink demo $(DEMO_OPTIONS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --maxprocesses 4 --dist worksteal $(TEST_OPTIONS)

chaos: $(INSTALLED)
	$(BIN)/python -m tests.chaos --trials $(TRIALS) --starts $(STARTS)

mutants: $(VENV)/installed-mutants
	$(BIN)/python -m tests.mutants $(GROUP)

$(VENV)/installed-mutants: $(INSTALLED) tests/mutants/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/mutants/requirements.lock
	@touch $@

look: $(VENV)/installed-look
	$(BIN)/python -m tests.look $(LOOK_OPTIONS)

$(VENV)/installed-look: $(INSTALLED) tests/look/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/look/requirements.lock
	@touch $@

example: $(INSTALLED)
	$(BIN)/python -m examples.web_application

example-check: $(VENV)/installed-look
	$(BIN)/python -m tests.look --only application $(LOOK_OPTIONS)

# Its checkers have a lock and an environment of their own: the project itself does not need them.
deploy-check: $(INSTALLED)
	test -x .venv-checks/bin/python || $(BIN)/python -m venv .venv-checks
	.venv-checks/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/deploy/requirements.lock
	$(BIN)/python -m tests.deploy .venv-checks/bin

model: $(INSTALLED)
	$(BIN)/python -m tests.model --sequences $(SEQUENCES) --steps $(STEPS) --seed $(MODEL_SEED)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.night $(BENCH_OPTIONS)

bench-reconcile: $(INSTALLED)
	$(BIN)/python -m benchmarks.reconcile_cost $(RECONCILE_OPTIONS)

month: $(INSTALLED)
	$(BIN)/python -m tests.jobs.rough_month

nights: $(INSTALLED)
	$(BIN)/python -m tests.forty_nights $(NIGHTS_OPTIONS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

columns: $(INSTALLED)
	@$(BIN)/python -m reports.glossary > .columns.md && $(BIN)/python -c 'import pathlib; \
		readme, columns = pathlib.Path("README.md"), pathlib.Path(".columns.md"); \
		text = readme.read_text(); start = text.index("<!-- columns:"); start = text.index("\n", start) + 1; \
		end = text.index("<!-- end of columns -->"); \
		readme.write_text(text[:start] + columns.read_text() + text[end:]); columns.unlink()'

sandbox: $(INSTALLED)
	$(BIN)/python -m pytest -n 0 -m stripe_sandbox tests/sandbox

behaviours: $(INSTALLED)
	@$(BIN)/python -m jobs.simulator.stripe_behaviours > .behaviours.md && $(BIN)/python -c 'import pathlib; \
		page, table = pathlib.Path("STRIPE.md"), pathlib.Path(".behaviours.md"); text = page.read_text(); \
		start = text.index("<!-- behaviours:"); start = text.index("\n", start) + 1; \
		end = text.index("<!-- end of behaviours -->"); \
		page.write_text(text[:start] + table.read_text() + text[end:]); table.unlink()'

# --universal: one lock for every system and Python; the hashes make any index as good as another, so that none is named.
lock:
	@command -v uv >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv/" >&2; exit 1; }
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-emit-index-url --no-header --no-annotate -o requirements.lock
	uv pip compile --group look -c requirements.lock --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-emit-index-url --no-header --no-annotate -o tests/look/requirements.lock
	uv pip compile --group mutants -c requirements.lock --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-emit-index-url --no-header --no-annotate -o tests/mutants/requirements.lock
