#!/usr/bin/env bash
# Checks every dependency against deny.toml. cargo-deny is built once, without optimisation: it reads a lock file.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cargo_tool cargo-deny '4 min'
cargo deny --locked check bans licenses sources

# The advisory database is fetched from GitHub. Where that can't be reached the check says so; a finding always fails.
if cargo deny fetch db > /dev/null 2>&1; then
    cargo deny --locked check advisories
else
    say "advisories: not checked, because the advisory database cannot be fetched here"
fi
