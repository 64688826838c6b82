#!/usr/bin/env bash
# Compiles the programs of a release into a folder.
#   release.sh FOLDER [PROGRAM...]   these programs; all by default
#
# The sidecar is compiled twice (profile-guided optimisation): first so that it counts what it executes, then, after a
# second of every load of the benchmark, by what it counted: what a call executes is then kept together in memory, apart
# from what it doesn't, down to parts of functions. A call of few finds little of it in the caches of its core. What its
# start executes lies together too, and so fills fewer pages of memory.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -gt 0 ] || fail "where do the programs go?" "Name a folder: e2e/release.sh FOLDER"
mkdir -p "$1"
folder="$(cd "$1" && pwd)"
shift
programs=(bulkhead-operator bulkhead-proxy kubectl-bulkhead ledger-mcp bulkhead-probe)
[ $# = 0 ] || programs=("$@")

source e2e/profiled.sh
counts="$profiled/counts"

# Functions that were executed, but not by every call: those are in the order that the compiler knows from the profile. The
# training makes more than 100,000 calls; where it makes fewer, they are listed too, and lie together in another order.
list_start() {
    "$(e2e/preflight.sh profdata)" show --all-functions --counts "$profile" | awk '
        /^  [^ ].*:$/ { sub(/^.*;|^  /, ""); sub(/:$/, ""); name = $0 }
        /^    Block counts:/ && /[1-9]/ && !/[0-9][0-9][0-9][0-9][0-9][0-9]/ { print name }' > "$1"
    [ -s "$1" ] || fail "no function of the sidecar's start is in its profile." "Does llvm-profdata show it as before?"
}

# Runs the sidecar that counts, and makes the profile of what it counted. With one worker: threads that count the same lose
# counts, and what a count is missing for would be taken for code that no call executes.
train() {
    local log="$profiled/training.log"
    rm -rf "$counts"
    mkdir -p "$counts"
    cargo build --quiet --release --locked -p bulkhead-bench
    LLVM_PROFILE_FILE="$counts/%p.profraw" "$CARGO_TARGET_DIR/release/bulkhead-bench" run --rounds 1 --seconds 1 --workers 1 \
        --proxy "$profiled/counting" --folder "$profiled/training" \
        --only "Bulkhead" --only "Bulkhead, owned records" --only "Bulkhead, events" > "$log" 2>&1 || fail "the loads failed ($log):" "$(tail -5 "$log")"
    compgen -G "$counts/*.profraw" > /dev/null || fail "the sidecar left no counts in $counts; the loads said ($log):" "$(tail -5 "$log")"
    "$(e2e/preflight.sh profdata)" merge --output "$profile.unfinished" "$counts"/*.profraw ||
        fail "the counts can't be read." "Is llvm-profdata of another LLVM than rustc?"
    mv "$profile.unfinished" "$profile"
}

for program in "${programs[@]}"; do
    if [ "$program" = bulkhead-proxy ]; then
        e2e/preflight.sh profdata > /dev/null
        say "compiling the sidecar so that it counts: about 7 min on two idle cores, once"
        compile_sidecar "$profiled" "-Cprofile-generate"
        if ! cmp --silent "$profiled/$host/release/bulkhead-proxy" "$profiled/counting" || [ ! -f "$profile" ]; then
            rm -f "$profile"
            cp "$profiled/$host/release/bulkhead-proxy" "$profiled/counting"
            train
        fi
        say "compiling it by what it counted: about 5 min, once"
        list_start "$profiled/start"
        compile_by_profile "$profiled"
        cp "$profiled/$host/release/bulkhead-proxy" "$folder/"
    else
        cargo build --quiet --release --locked -p "$program"
        cp "$CARGO_TARGET_DIR/release/$program" "$folder/"
    fi
done
