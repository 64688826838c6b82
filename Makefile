# Bulkhead's commands. `make` alone lists them.
#
# Everything that is built or downloaded lies in BULKHEAD_CACHE, so that a fresh clone is warm; running clusters and
# their logs lie in .run.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules

BULKHEAD_CACHE ?= $(HOME)/.cache/bulkhead
BULKHEAD_STATE ?= $(CURDIR)/.run
CARGO_TARGET_DIR ?= $(BULKHEAD_CACHE)/target
export BULKHEAD_CACHE BULKHEAD_STATE CARGO_TARGET_DIR

# An existing cluster instead of a local one: a kubectl context, and how images get there (one of the two).
CONTEXT ?=
LOAD ?=
REGISTRY ?=
# `make e2e SCENARIO=name`: only scenarios whose name contains it. `make test KEEP=1`: leave the cluster up.
SCENARIO ?=
KEEP ?=
export CONTEXT LOAD REGISTRY SCENARIO KEEP

FUZZ_SECONDS ?= 600

# The local cluster that a target means.
CLUSTER ?= demo

##@ Use

.PHONY: help
help: ## List the commands.
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@printf '%s\n' '' \
		'An existing cluster: make demo CONTEXT=kind-dev LOAD="kind load image-archive --name dev"' \
		'                     make demo CONTEXT=staging REGISTRY=registry.example.com/bulkhead'

.PHONY: demo
demo: ## Bring up a cluster with two tenants and call tools through their sidecars.
	@e2e/demo.sh

.PHONY: demo-down
demo-down: ## Remove what `make demo` made.
	@e2e/down.sh demo

##@ Test

.PHONY: test
test: ## Run everything: static checks, unit, fuzzing in short, integration, MCP conformance, chart, end to end on a real cluster.
	@e2e/test.sh static unit fuzz integration conformance chart e2e

.PHONY: check
check: ## Run the fast half: static checks and unit tests, no cluster.
	@e2e/test.sh static unit

.PHONY: conformance
conformance: ## Run the MCP conformance suites and clients through the sidecar (SCENARIO=name runs one).
	@e2e/conformance.sh $(SCENARIO)

.PHONY: e2e
e2e: ## Run the end-to-end scenarios on the cluster `test`, and leave it up (SCENARIO=name filters).
	@KEEP=1 e2e/test.sh e2e

.PHONY: lint
lint: ## Run the static checks: format, clippy, dependencies, layers, shell scripts.
	@e2e/test.sh static

.PHONY: deny
deny: ## Check licenses, advisories, bans and sources of every dependency; builds cargo-deny once.
	@e2e/deny.sh

.PHONY: fuzz
fuzz: ## Fuzz what reads strangers' bytes: each target for FUZZ_SECONDS (600), two at a time.
	@e2e/fuzz.sh $(FUZZ_SECONDS)

.PHONY: bench
bench: ## Measure what one decision costs, and the sidecar beside nginx and Envoy; write docs/performance.md.
	@e2e/bench.sh

##@ Build

.PHONY: generate
generate: ## Write the generated files: CRDs, the chart's copy, manifests, the API reference.
	@e2e/generate.sh

.PHONY: verify-generated
verify-generated: ## Fail when a generated file is stale.
	@e2e/generate.sh --check

.PHONY: images
images: ## Build the container images; their names are in .run/images.env.
	@e2e/images.sh

##@ Cluster

.PHONY: install-tools
install-tools: ## Install the Debian packages that clusters and images need.
	@e2e/preflight.sh tools

.PHONY: cluster-tools
cluster-tools: ## Build Kubernetes and what runs beside it from Go modules, once.
	@cargo run --quiet --locked -p bulkhead-cluster -- build

.PHONY: cluster-up
cluster-up: ## Start a local cluster with Bulkhead, cert-manager and the database (CLUSTER=demo).
	@e2e/up.sh $(CLUSTER)

.PHONY: cluster-down
cluster-down: ## Stop a local cluster and remove all of it (CLUSTER=demo).
	@e2e/down.sh $(CLUSTER)
