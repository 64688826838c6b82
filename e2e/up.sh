#!/usr/bin/env bash
# Brings a cluster up with all that tenants need: cert-manager, the images, Bulkhead's chart, the shared database.
# Whatever is there already stays.  up.sh NAME [flags of `bulkhead-cluster up`]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name="$1"
shift
mapfile -t target < <(target "$name")
[ -z "$CONTEXT" ] || [ -n "$LOAD$REGISTRY" ] || fail "an existing cluster needs a way to get images into it." \
    "Add LOAD='kind load image-archive --name NAME', or REGISTRY=registry.example.com/path."

e2e/preflight.sh cluster
compile_cluster_tool

# An existing cluster is spoken to with the kubectl that its owner has.
kubectl=''
[ -z "$CONTEXT" ] || kubectl="$(type -P kubectl || true)"

# The cluster starts while the images are compiled: it mostly waits, and they mostly compute.
start_cluster() {
    local parts=(helm)
    [ -n "$kubectl" ] || parts+=(kubernetes)
    cluster build "${parts[@]}"
    cluster "${target[@]}" up "$@"
    cluster "${target[@]}" install-cert-manager
}
step "Cluster ${CONTEXT:-$name}"
started=$SECONDS
(start_cluster "$@") > >(sed -u "s/^/${dim}  cluster |${plain} /") 2>&1 &
starting=$!
trap 'kill "$starting" 2> /dev/null || true' EXIT
e2e/images.sh
wait "$starting" || fail "the cluster did not come up." \
    "Its components' logs: $(cluster "${target[@]}" logs-dir 2> /dev/null || echo "$BULKHEAD_STATE")"
trap - EXIT
remark "the cluster and the images took $(duration $((SECONDS - started)))"

step "Installing"
kubeconfig="$(cluster "${target[@]}" kubeconfig)"
helm="$(cluster tool helm)"
[ -n "$kubectl" ] || kubectl="$(cluster tool kubectl)"
environment="$(cluster_environment "$name")"
values="${environment%.env}.values.yaml"
mkdir -p "$BULKHEAD_STATE"
{
    printf 'export KUBECONFIG=%q\nHELM=%q\nKUBECTL=%q\n' "$kubeconfig" "$helm" "$kubectl"
    printf 'PLUGIN=%q\nVALUES=%q\n' "$CARGO_TARGET_DIR/quick-release/kubectl-bulkhead" "$values"
} > "$environment.unfinished"

source "$BULKHEAD_STATE/images.env"
declare -A image
for each in operator proxy cli ledger probe postgres; do
    archive="BULKHEAD_ARCHIVE_${each^^}"
    image[$each]="$(cluster "${target[@]}" load-image "${!archive}")"
    printf 'IMAGE_%s=%q\n' "${each^^}" "${image[$each]}" >> "$environment.unfinished"
    say "  image ${image[$each]}"
done
cat > "$values" <<VALUES
# What the chart is installed with here: the images that were built from this tree.
operator: {image: {repository: "${image[operator]%:*}", tag: "${image[operator]##*:}"}}
proxy: {image: {repository: "${image[proxy]%:*}", tag: "${image[proxy]##*:}"}}
VALUES
# Here issuers of persons' tokens are behind Services, and their pods listen on 8443.
[ -n "$CONTEXT" ] || echo 'issuers: {cidrs: [10.96.0.0/16], ports: [443, 8443]}' >> "$values"

export KUBECONFIG="$kubeconfig"
# On somebody's cluster nothing is taken over that was there before: what stands there must come from an earlier run.
if [ -n "$CONTEXT" ] && [ ! -f "$environment" ]; then
    taken="$("$kubectl" get namespaces bulkhead-system databases acme globex --ignore-not-found --output name)"
    [ -z "$taken" ] || fail "these exist in ${CONTEXT} already, and the demo would take them over:" "$taken" \
        "Choose another cluster, or delete them first."
fi
say "  database"
sed "s|localhost/bulkhead-postgres:dev|${image[postgres]}|" e2e/fixtures/postgres/postgres.yaml |
    "$kubectl" apply --filename - > /dev/null
say "  chart bulkhead"
"$helm" upgrade --install bulkhead charts/bulkhead --namespace bulkhead-system --create-namespace \
    --values "$values" --wait --timeout 5m > /dev/null ||
    fail "the chart did not install." "Look: kubectl --kubeconfig $kubeconfig --namespace bulkhead-system describe pods" \
        "Logs of the cluster's components: $(cluster "${target[@]}" logs-dir)"
"$kubectl" --namespace databases rollout status deployment/postgres --timeout 5m > /dev/null
mv "$environment.unfinished" "$environment"
