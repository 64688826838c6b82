#!/usr/bin/env bash
# Checks every dependency against deny.toml. cargo-deny is built once, without optimisation: it reads a lock file.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tools="$BULKHEAD_CACHE/tools"
export PATH="$tools/bin:$PATH"
if ! type -P cargo-deny > /dev/null; then
    say "building cargo-deny, once: about 4 min on two idle cores"
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$tools/target" cargo install --quiet --locked --debug --root "$tools" cargo-deny ||
        fail "cargo-deny could not be built." "Check the network, or install it by hand: cargo install cargo-deny"
    rm -rf "$tools/target"
fi
cargo deny --locked check bans licenses sources

# The advisory database is fetched from GitHub. Where that can't be reached the check says so; a finding always fails.
if cargo deny fetch db > /dev/null 2>&1; then
    cargo deny --locked check advisories
else
    say "advisories: not checked, because the advisory database cannot be fetched here"
fi
