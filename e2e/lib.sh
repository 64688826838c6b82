# shellcheck shell=bash
# What the scripts share: where things are, how they speak, how they fail. Sourced, never run.

set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$repository"

export BULKHEAD_CACHE="${BULKHEAD_CACHE:-$HOME/.cache/bulkhead}"
export BULKHEAD_STATE="${BULKHEAD_STATE:-$repository/.run}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$BULKHEAD_CACHE/target}"
: "${CONTEXT:=}" "${LOAD:=}" "${REGISTRY:=}" "${SCENARIO:=}" "${KEEP:=}"

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
    bold='' dim='' green='' red='' plain=''
fi

# A heading, something that is told, a remark.
step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
say() { printf '%s\n' "$*"; }
remark() { printf '%s   %s%s\n' "$dim" "$*" "$plain"; }

# cargo_tool NAME TIME: puts a tool of Cargo's into PATH, built once without optimisation where it is missing.
cargo_tool() {
    local tools="$BULKHEAD_CACHE/tools"
    export PATH="$tools/bin:$PATH"
    ! type -P "$1" > /dev/null || return 0
    say "building $1, once: about $2 on two idle cores"
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$tools/target" cargo install --quiet --locked --debug --root "$tools" "$1" ||
        fail "$1 could not be built." "Check the network, or install it by hand: cargo install $1"
    rm -rf "$tools/target"
}

# An error that names the way out, and the end.
fail() {
    printf '%serror:%s %s\n' "$red" "$plain" "$1" >&2
    shift
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}

# A length of time as people say it.
duration() {
    if [ "$1" -ge 60 ]; then printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); else printf '%d s' "$1"; fi
}

# The cluster tool. `tool build` compiles it; afterwards it is run as it is, so that nothing waits for Cargo.
cluster_tool="$CARGO_TARGET_DIR/debug/bulkhead-cluster"
cluster() { "$cluster_tool" "$@"; }
compile_cluster_tool() { cargo build --quiet --locked -p bulkhead-cluster; }

# Helm: the one that was built, or that is built now.
helm_program() { compile_cluster_tool && cluster build helm && cluster tool helm; }

# Clones share the target directory, and Cargo tells what is stale by times of files alone: another clone's newer
# programs would pass for this one's. So what a clone finds built by another counts as older than its sources.
claim_target_directory() {
    local owner="$CARGO_TARGET_DIR/.repository"
    [ "$(cat "$owner" 2> /dev/null)" != "$repository" ] || return 0
    mkdir -p "$CARGO_TARGET_DIR"
    find src e2e crds charts manifests Cargo.toml Cargo.lock -type f -exec touch {} +
    printf '%s\n' "$repository" > "$owner"
}
claim_target_directory

# target NAME: the arguments that mean the local cluster of that name, or the existing one that CONTEXT names.
target() {
    if [ -z "$CONTEXT" ]; then
        printf '%s\n' --name "$1"
    else
        printf '%s\n' --context "$CONTEXT"
        [ -z "$LOAD" ] || printf '%s\n' --load "$LOAD"
        [ -z "$REGISTRY" ] || printf '%s\n' --registry "$REGISTRY"
    fi
}

# Where up.sh writes how a cluster is reached and what its images are called there.
cluster_environment() { printf '%s/%s.env\n' "$BULKHEAD_STATE" "${CONTEXT:-$1}"; }
