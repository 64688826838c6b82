#!/usr/bin/env bash
# The main job, on a real Kubernetes: two tenants from two files, and calls through their sidecars as their agents.
# Can be run again at any time: what is up stays up.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

acme=7f9c0d5e-1b7a-4c57-9f6e-2f3f0a1c0001
globex=2b61d6c4-58f0-4b9c-8f7e-6f0c5d7e0002

begun=$SECONDS
e2e/up.sh demo
# shellcheck disable=SC1090
source "$(cluster_environment demo)"
export BULKHEAD_CLI_IMAGE="$IMAGE_CLI"
mapfile -t target < <(target demo)

# What went wrong, where to look, and the end.
broken() {
    "$KUBECTL" get mcptenants,pods --all-namespaces >&2 || true
    fail "$1" "Logs of the cluster's components: $(cluster "${target[@]}" logs-dir 2> /dev/null || echo "$BULKHEAD_STATE")" \
        "Bulkhead's own: kubectl --kubeconfig $KUBECONFIG --namespace bulkhead-system logs --selector app.kubernetes.io/name=bulkhead-operator" \
        "Try again: make demo (what is up stays up), or from the beginning: make demo-down demo"
}

# until_true SECONDS WHAT COMMAND...: asks again until the command succeeds.
until_true() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $end ] || broken "$what did not happen in time."
        sleep 1
    done
}

# bulkhead EXIT TEXT ARGUMENTS...: shows and runs a command of the plugin, which must end with this exit code and print
# this text.
bulkhead() {
    local expected=$1 text=$2 status=0 argument shown='' output
    shift 2
    for argument in "$@"; do
        case $argument in *[\{\}\ ]*) shown+=" '$argument'" ;; *) shown+=" $argument" ;; esac
    done
    printf '\n%s$ kubectl bulkhead%s%s\n' "$bold" "$shown" "$plain"
    output="$BULKHEAD_STATE/demo.output"
    "$PLUGIN" "$@" 2>&1 | tee "$output" || status=$?
    [ $status = "$expected" ] || broken "that command should have ended with exit code $expected, and ended with $status."
    grep -qF -- "$text" "$output" || broken "that command should have said: $text"
}

# The last request that reached a tenant's server, from the server's own log.
reached() {
    say "${dim}what the server was asked:${plain}"
    "$KUBECTL" --namespace "$1" logs --selector bulkhead.dev/server=ledger --container server --tail=-1 |
        grep '"asked"' | tail -1 | sed 's/,"headers".*/}/; s/^/  /'
}

step "Two tenants"
for tenant in acme globex; do
    say "  kubectl apply --filename manifests/samples/$tenant.yaml"
    sed "s|^\( *-\{0,1\} *image:\) .*|\1 $IMAGE_LEDGER|" "manifests/samples/$tenant.yaml" | "$KUBECTL" apply --filename - > /dev/null
done
for tenant in acme globex; do
    until_true 120 "namespace $tenant" "$KUBECTL" get namespace "$tenant"
done
remark "each gets its database role: e2e/fixtures/postgres/secrets.yaml"
"$KUBECTL" apply --filename e2e/fixtures/postgres/secrets.yaml > /dev/null
for tenant in acme globex; do
    until_true 300 "mcptenant $tenant Ready" "$KUBECTL" wait --for=condition=Ready --timeout=5s "mcptenant/$tenant"
done
remark "both ready"
bulkhead 0 globex status

step "An agent calls its tools"
bulkhead 0 INV-1001 call acme/ledger list_invoices '{}' --agent billing
reached acme
remark "the call named no tenant and no branch: the sidecar did, from acme's policy and the agent's attributes"

step "It asks for another tenant's rows"
bulkhead 0 "$acme" call acme/ledger list_invoices "{\"tenant_id\": \"$globex\"}" --agent billing
reached acme
remark "acme is $acme, whatever the caller says"

step "It asks for what it may not have"
bulkhead 5 'refused: ' call acme/ledger delete_invoice '{"invoice_id": "INV-1001"}' --agent billing
remark "another role's tool: for this agent it does not exist"
bulkhead 5 'refused: ' call acme/ledger export_all '{}' --agent billing
remark "the server has this tool, and acme's policy does not list it"
bulkhead 2 'at most 100' call acme/ledger list_invoices '{"limit": 100000}' --agent billing
remark "out of bounds: an answer that a model can correct"

step "The other tenant, the same tables"
bulkhead 0 "$globex" call globex/ledger list_invoices '{}' --agent billing
reached globex

step "Done in $(duration $((SECONDS - begun)))"
say "  export KUBECONFIG=$KUBECONFIG"
say "  export PATH=$(dirname "$PLUGIN"):$(dirname "$KUBECTL"):\$PATH BULKHEAD_CLI_IMAGE=$IMAGE_CLI"
say "  kubectl bulkhead status            look around"
say "  make demo-down                     remove it all"
