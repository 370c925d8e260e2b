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
DOCS := build/docs
RUNTIME := pyproject.toml --extra lz4
LOCKS := zipapp/requirements.lock tests/requirements.lock docs/requirements.lock
PYZ := dist/nxs-backup.pyz
PACKAGES := pipeline schemas stages
SOURCES := $(sort $(shell find $(PACKAGES) -name __pycache__ -prune -o -type f -print 2>/dev/null))
VERSION = $(shell $(PYTHON) -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null)
OPTIONS = $(VERSION) $(PRESET) $(PYTHONS) $(PLATFORMS) $(SOURCES)
RELEASE := dist/release/nxs-backup.pyz
BUILDER := $(wildcard zipapp/*.py zipapp/*.toml zipapp/boot/*.py)

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: .FORCE bench clean demo docs help lint lock portability pyz python release servers
.PHONY: system-packages test types

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | expand -t 12

demo: $(PYZ) ## a backup and its restore, in seconds, with the built archive
	@NXS_BACKUP=$(PYZ) PYTHON=$(PYTHON) sh examples/demo.sh

test: system-packages lint docs pyz servers ## everything: lint, types, documentation, archive, tests
	$(VENV)/bin/python -m pytest -n $(WORKERS) $(TESTS)

servers: $(VENV)/.complete ## the servers of tests that no package has
	$(VENV)/bin/python -m tests.servers.install

lint: $(VENV)/.complete types ## formatting, code rules, types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

types: $(VENV)/.complete
	$(VENV)/bin/mypy --strict $(PACKAGES) zipapp/build.py

pyz: $(PYZ) ## dist/nxs-backup.pyz, the program in one file

docs: $(DOCS)/.complete ## build/site, the documentation; what is wrong with a page is an error
	$(DOCS)/bin/sphinx-build -q -W --keep-going -E -b html docs build/site

release: $(RELEASE) ## dist/release: for every Python, one for all platforms and one for each

portability: $(VENV)/.complete $(RELEASE) ## the archives on other systems; as root, takes long
	@tests/install-system-packages $(PYTHON) tests/e2e/portability/system-packages.txt
	$(VENV)/bin/python -m pytest -s -p no:cacheprovider --timeout 3000 \
		$(addprefix tests/e2e/portability/,matrix.py surroundings.py images.py builds.py)
	$(VENV)/bin/python -m tests.e2e.portability.figures

bench: $(VENV)/.complete $(PYZ) ## measure against the tools that people use today
	$(VENV)/bin/python -m bench

lock: python ## regenerate the lock files
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install -q --disable-pip-version-check uv
	$(call compile,zipapp/requirements.lock,$(RUNTIME))
	$(call compile,tests/requirements.lock,$(RUNTIME) --group dev -c zipapp/requirements.lock)
	$(call compile,docs/requirements.lock,--group docs)
	@! grep -nE '://|^ *-(-index|-extra|-find|f |i )|file:' $(LOCKS)

clean: ## remove everything that was made
	rm -rf build dist $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One version of each package for all Pythons, with hashes, and without the address of a registry.
compile = build/lock/bin/uv pip compile -q --no-config $(2) \
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

$(DOCS)/.complete: docs/requirements.lock | python
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

# Changes only when the options do, or which files there are.
build/pyz-options: .FORCE
	@mkdir -p $(@D)
	@echo '$(OPTIONS)' | cmp -s - $@ || echo '$(OPTIONS)' > $@

$(PYZ): $(SOURCES) $(BUILDER) zipapp/requirements.lock pyproject.toml build/pyz-options | python
	$(PYTHON) zipapp/build.py --output $@ --preset $(PRESET) \
		$(if $(PYTHONS),--pythons $(PYTHONS)) $(if $(PLATFORMS),--platforms $(PLATFORMS))
	@touch $@

$(RELEASE): $(SOURCES) $(BUILDER) zipapp/requirements.lock pyproject.toml | python
	$(PYTHON) zipapp/build.py --output $@ --pythons all --platforms all --slim
	@touch $@
