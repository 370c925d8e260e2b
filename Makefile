# Needs Python >= 3.10 and make; `make help` lists what there is.
PYTHON ?= python3
# What the archive is built for; `make pyz PYTHONS=all PLATFORMS=all` makes the universal one.
PYTHONS ?=
PLATFORMS ?=
PRESET ?= 6
# What pytest is given, such as `make test TESTS="tests/unit -k retention"`.
TESTS ?=
# Files of tests that run side by side: most of their time they wait for servers.
WORKERS ?= 3
# `make lock UPGRADE=--upgrade` takes the newest versions; otherwise pins stay as they are.
UPGRADE ?=

VENV := .venv
PYZ := dist/nxs-backup.pyz
PACKAGES := pipeline schemas stages
SOURCES := $(sort $(shell find $(PACKAGES) -name __pycache__ -prune -o -type f -print 2>/dev/null))
VERSION = $(shell $(PYTHON) -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null)
OPTIONS = $(VERSION) $(PRESET) $(PYTHONS) $(PLATFORMS) $(SOURCES)
BUILDER := $(wildcard zipapp/*.py zipapp/*.toml zipapp/boot/*.py)

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: .FORCE bench clean demo help lint lock pyz python servers system-packages test types

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | expand -t 12

demo: $(PYZ) ## a backup and its restore, in seconds, with the built archive
	@NXS_BACKUP=$(PYZ) PYTHON=$(PYTHON) sh examples/demo.sh

test: system-packages lint pyz servers ## everything: lint, types, archive, all tests
	$(VENV)/bin/python -m pytest -n $(WORKERS) $(TESTS)

servers: $(VENV)/.complete ## the servers of tests that no package has
	$(VENV)/bin/python -m tests.servers.install

lint: $(VENV)/.complete types ## formatting, code rules, types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

types: $(VENV)/.complete
	$(VENV)/bin/mypy --strict $(PACKAGES) zipapp/build.py

pyz: $(PYZ) ## dist/nxs-backup.pyz, the program in one file

bench: $(VENV)/.complete $(PYZ) ## measure against the tools that people use today
	$(VENV)/bin/python -m bench

lock: python ## regenerate the lock files
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install -q --disable-pip-version-check uv
	$(call compile,zipapp/requirements.lock,)
	$(call compile,tests/requirements.lock,--group dev -c zipapp/requirements.lock)
	@! grep -nE '://|^ *-(-index|-extra|-find|f |i )|file:' zipapp/requirements.lock tests/requirements.lock

clean: ## remove everything that was made
	rm -rf build dist $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One version of each package for all Pythons, with hashes, and without the address of a registry.
compile = build/lock/bin/uv pip compile -q --no-config pyproject.toml --extra lz4 $(2) \
	--universal --python-version 3.10 --fork-strategy fewest --generate-hashes \
	--no-annotate --no-header --no-emit-index-url $(UPGRADE) -o $(1)

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo 'make: "$(PYTHON)" is missing or older than 3.10: use "make PYTHON=/path/to/python3.N"' >&2; \
		exit 1; }

system-packages: python
	@tests/install-system-packages $(PYTHON)

$(VENV)/.complete: tests/requirements.lock | python
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

# Changes only when the options do, or which files there are.
build/pyz-options: .FORCE
	@mkdir -p $(@D)
	@echo '$(OPTIONS)' | cmp -s - $@ || echo '$(OPTIONS)' > $@

$(PYZ): $(SOURCES) $(BUILDER) zipapp/requirements.lock pyproject.toml build/pyz-options | python
	$(PYTHON) zipapp/build.py --output $@ --preset $(PRESET) \
		$(if $(PYTHONS),--pythons $(PYTHONS)) $(if $(PLATFORMS),--platforms $(PLATFORMS))
	@touch $@
