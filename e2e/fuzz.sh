#!/usr/bin/env bash
# Runs the fuzz targets, two at a time: fuzz.sh SECONDS [TARGET...]. What a run finds interesting is kept in the cache and
# is where the next one begins; what breaks an invariant is kept in .run/fuzz, and the command that repeats it is printed.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

seconds="${1:-}"
[[ $seconds =~ ^[1-9][0-9]*$ ]] || fail "how many seconds for each target? '$seconds' is no whole number." \
    "Say it as fuzz.sh SECONDS [TARGET...], or make fuzz FUZZ_SECONDS=..."
shift
mapfile -t known < <(sed -n 's/^name = "\([a-z]*\)"$/\1/p' e2e/fuzz/Cargo.toml)
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=("${known[@]}")
for target in "${targets[@]}"; do
    [[ " ${known[*]} " == *" $target "* ]] || fail "no fuzz target $target; there are: ${known[*]}"
done

cargo_tool cargo-fuzz '1 min'
built="$BULKHEAD_CACHE/fuzz/target"
# Without a sanitizer it runs on stable Rust; there is no unsafe code that one would watch.
fuzz() { cargo fuzz "$1" --fuzz-dir e2e/fuzz --target-dir "$built" --sanitizer none "${@:2}"; }
say "building the fuzz targets"
fuzz build > /dev/null

run() {
    local target=$1 corpus="$BULKHEAD_CACHE/fuzz/corpus/$1" found="$BULKHEAD_STATE/fuzz/$1" log
    mkdir -p "$corpus" "$found"
    log="$found/log"
    if fuzz run "$target" "$corpus" "e2e/fuzz/seeds/$target" -- -max_total_time="$seconds" -max_len=4096 -timeout=10 \
        -rss_limit_mb=1024 -dict=e2e/fuzz/json.dict -artifact_prefix="$found/" -print_final_stats=1 > "$log" 2>&1; then
        say "  ok      $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs"
    else
        say "  failed  $target; again with: cargo fuzz run --fuzz-dir e2e/fuzz --sanitizer none $target FILE"
        tail -30 "$log"
        return 1
    fi
}

status=0
for ((at = 0; at < ${#targets[@]}; at += 2)); do
    running=()
    for target in "${targets[@]:at:2}"; do run "$target" & running+=($!); done
    for each in "${running[@]}"; do wait "$each" || status=1; done
done
exit $status
