#!/usr/bin/env bash
# Runs the MCP conformance suites at the fixture server and again through the sidecar, and clients of other SDKs.
#   conformance.sh            all of it, with the gate
#   conformance.sh SCENARIO   one scenario, to see what it is about
#   conformance.sh install    only what is needed from the registries of npm and PyPI, once
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

here="$repository/e2e/conformance"
# What is installed is known by what it was made from: another version goes into another folder.
made_from="$(cat "$here/package-lock.json" "$here/clients/requirements.txt" | sha256sum | cut -c1-16)"
installed="$BULKHEAD_CACHE/conformance-$made_from"

install() {
    [ ! -d "$installed" ] || return 0
    e2e/preflight.sh conformance
    say "installing the conformance suites and clients into $installed"
    local partial log="$BULKHEAD_CACHE/log/conformance.log"
    mkdir -p "$BULKHEAD_CACHE/log"
    # A virtual environment has its path in it, so it is made where it stays, and what is complete is marked by a link.
    partial="$(mktemp --directory "$installed.XXXXXX")"
    cp "$here"/package{,-lock}.json "$partial"
    # The suites want a newer Node.js than Debian's npm runs on: theirs is one of the packages.
    { (cd "$partial" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) &&
        python3 -m venv "$partial/python" &&
        "$partial/python/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$here/clients/requirements.txt"
    } > "$log" 2>&1 || { rm -rf "$partial"; fail "npm or pip could not install them ($log):" "$(tail -5 "$log")" "Check the network, and the registries in ~/.npmrc and pip.conf."; }
    ln -sfn "${partial##*/}" "$installed"
}

install
[ "${1:-}" != install ] || exit 0
# With the tests, and so with the features that the stages before it built everything with.
cargo build --quiet --locked --workspace --bins --tests
"$CARGO_TARGET_DIR/debug/bulkhead-conformance" --modules "$installed/node_modules" --python "$installed/python/bin/python" \
    --fixture "$CARGO_TARGET_DIR/debug/conformance-mcp" --plugin "$CARGO_TARGET_DIR/debug/kubectl-bulkhead" \
    --tenant "$here/tenant.yaml" --clients "$here/clients" \
    --persons "$here/persons" --persons-tenant "$here/persons.yaml" --results "$BULKHEAD_STATE/conformance" ${1:+--scenario "$1"}
