#!/usr/bin/env bash
# Removes what up.sh and demo.sh made. Of an existing cluster, Bulkhead and the samples; cert-manager stays, because
# others may use it.  down.sh NAME
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name="$1"
mapfile -t target < <(target "$name")
compile_cluster_tool
environment="$(cluster_environment "$name")"
if [ -z "$CONTEXT" ]; then
    cluster "${target[@]}" down
elif [ -f "$environment" ]; then
    # shellcheck disable=SC1090
    source "$environment"
    "$KUBECTL" delete mcptenants --all --wait --timeout 5m --ignore-not-found
    "$HELM" uninstall bulkhead --namespace bulkhead-system --wait --ignore-not-found
    "$KUBECTL" delete namespace bulkhead-system databases --ignore-not-found
    "$KUBECTL" delete crd mcptenants.bulkhead.dev --ignore-not-found
fi
rm -f "$environment" "${environment%.env}.values.yaml"
