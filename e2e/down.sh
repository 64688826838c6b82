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
    "$KUBECTL" delete mcptenants acme globex --wait --timeout 5m --ignore-not-found
    # Others' tenants are not ours to delete, and Bulkhead goes on for them.
    others="$("$KUBECTL" get mcptenants --output \
        go-template='{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}')"
    [ -z "$others" ] || fail "the samples are gone; Bulkhead stays, because there are other tenants: $others" \
        "To remove those too: kubectl --context $CONTEXT delete mcptenants $others"
    # Those that are going need the operator until they are gone.
    "$KUBECTL" delete mcptenants --all --wait --timeout 5m --ignore-not-found
    "$HELM" uninstall bulkhead --namespace bulkhead-system --wait --ignore-not-found
    # Kept on an uninstall, as tenants are; there is none left.
    "$KUBECTL" delete validatingadmissionpolicybindings,validatingadmissionpolicies,clusterroles \
        --selector app.kubernetes.io/part-of=bulkhead
    "$KUBECTL" delete namespace bulkhead-system databases --ignore-not-found
    "$KUBECTL" delete crd mcptenants.bulkhead.dev --ignore-not-found
fi
rm -f "$environment" "${environment%.env}.values.yaml"
