#!/usr/bin/env bash
# Writes the generated files, or with --check fails when one is stale. The manifest for `kubectl apply` is rendered
# from the chart, so Helm is built first where it isn't yet.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

HELM="$(helm_program)"
export HELM
exec cargo run --quiet --locked -p bulkhead-api --bin bulkhead-generate -- --with-manifest "$@"
