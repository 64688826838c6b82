#!/usr/bin/env bash
# Runs the stages of the tests, all of them even when one fails; says how long each took, and ends with one line that
# counts, after what has failed.  test.sh STAGE...  (static, unit, fuzz, integration, conformance, chart, e2e)
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

logs="$BULKHEAD_STATE/log"
mkdir -p "$logs"
passed=0 failed=0
report=()
broken=()
# What failed, told again at the end: what was printed on the way may be thousands of lines back, or not kept.
failures="$logs/failures"
: > "$failures"

# uncoloured LOG: the log as text alone.
uncoloured() { sed 's/\x1b\(\[[0-9;]*m\|(B\)//g' "$1"; }

# count LOG: adds up what the test runners said in it, and keeps how each failed test ended.
count() {
    local ok bad
    read -r ok bad < <(uncoloured "$1" |
        awk '/^test result: / {ok += $4; bad += $6} END {print ok + 0, bad + 0}')
    passed=$((passed + ok)) failed=$((failed + bad))
    [ "$bad" = 0 ] || uncoloured "$1" | awk '
        /^---- .* stdout ----$/ {left = 0; print "  " $2; next}
        /^failures:$|^stack backtrace:$/ {left = 0}
        /panicked at |^Error: / {left = 12}
        left > 0 && NF {left--; print "      " substr($0, 1, 300)}' >> "$failures"
    return "$((bad > 0))"
}

# check NAME COMMAND...: one check without a test runner, counted as one.
check() {
    local name=$1 log="$logs/$1.log"
    shift
    if "$@" > "$log" 2>&1; then
        passed=$((passed + 1))
        say "  ${green}ok${plain}      $name"
    else
        failed=$((failed + 1))
        say "  ${red}failed${plain}  $name: $*"
        tail -40 "$log"
        keep_end "$name" "$log"
        return 1
    fi
}

# tests NAME COMMAND...: a command with test runners in it; what they count is added up.
tests() {
    local log="$logs/$1.log" status=0
    shift
    "$@" 2>&1 | tee "$log" || status=$?
    if count "$log" && [ $status != 0 ]; then ended "$log"; fi
    return $status
}

# ended LOG: no test failed in it, and yet the command did: it did not compile, or was killed.
ended() {
    failed=$((failed + 1))
    keep_end "$(basename "$1" .log)" "$1"
}

# keep_end NAME LOG: keeps the last that a command said that isn't a test runner.
keep_end() {
    { say "  $1"; uncoloured "$2" | tail -5 | cut -c 1-300 | sed 's/^/      /'; } >> "$failures"
}

# aside NAME COMMAND...: starts the same beside what follows; `join NAME` waits for it, shows its output and counts.
declare -A asides=()
trap 'for each in "${asides[@]}"; do kill "$each" 2> /dev/null || true; done' EXIT
aside() {
    local name=$1
    shift
    rm -f "$logs/$name.log"
    "$@" > "$logs/$name.log" 2>&1 &
    asides[$name]=$!
}

join() {
    local log="$logs/$1.log" status=0
    wait "${asides[$1]}" || status=$?
    unset "asides[$1]"
    cat "$log"
    if count "$log" && [ $status != 0 ]; then ended "$log"; fi
    return $status
}

# Nothing in the sidecar speaks to Kubernetes or reads YAML, and nothing at all uses a second TLS stack.
layers() {
    local status=0 crate found
    # The whole tree is asked for, since Cargo fails alike for a crate that isn't there and for a question that is wrong.
    absent() {
        found="$(cargo tree --locked --edges normal --prefix none --format '{p}' "${@:2}")" || return 1
        ! grep --quiet "^$1 v" <<< "$found" || { echo "$1 must not be there: cargo tree ${*:2} --invert $1"; return 1; }
    }
    for crate in kube k8s-openapi serde-saphyr; do absent "$crate" -p bulkhead-proxy || status=1; done
    for crate in tokio kube hyper; do absent "$crate" -p bulkhead-core || status=1; done
    for crate in ring openssl native-tls serde_yaml; do absent "$crate" --workspace || status=1; done
    return $status
}

stage_static() {
    local status=0
    check format cargo fmt --all --check || status=1
    check clippy cargo clippy --workspace --all-targets --locked --quiet -- -D warnings || status=1
    check layers layers || status=1
    check dependencies e2e/deny.sh || status=1
    check generated e2e/generate.sh --check || status=1
    check scripts bash -n e2e/*.sh e2e/bench/*.sh e2e/fixtures/postgres/*.sh .ci/run || status=1
    # What the benchmark leaves out of the sidecar must still be there to be left out.
    check patches git apply --check e2e/bench/without/*.patch || status=1
    return $status
}

stage_unit() {
    local status=0
    tests unit cargo test --workspace --locked --no-fail-fast --lib --bins || status=1
    tests doc cargo test --locked --doc -p bulkhead-core || status=1
    return $status
}

# Not to find what is new, which takes hours, but to see that the targets build and hold on what was found before.
stage_fuzz() {
    check fuzz e2e/fuzz.sh 2
}

stage_integration() {
    HELM="$(helm_program)" || return 1
    export HELM
    # On a fresh machine: the tests start API servers, and a cluster, and build nothing themselves.
    cluster build --all || return 1
    local each=(cargo test --workspace --locked --no-fail-fast --exclude bulkhead-e2e) status=0
    "${each[@]}" --no-run --test '*' || { failed=$((failed + 1)); return 1; }
    # Half of the time goes to the files `api_server`, whose tests mostly wait for one: the others, which are all whose
    # names don't begin with `ap`, run beside them. Of either more tests at once than there are cores.
    aside integration-api-server "${each[@]}" --test 'ap*' -- --test-threads=4
    tests integration "${each[@]}" --test '[!a]*' --test 'a[!p]*' -- --test-threads=4 || status=1
    join integration-api-server || status=1
    return $status
}

stage_conformance() {
    tests conformance e2e/conformance.sh
}

stage_chart() {
    local helm status=0
    helm="$(helm_program)" || return 1
    check chart-lint "$helm" lint --strict charts/bulkhead || status=1
    check chart-template "$helm" template bulkhead charts/bulkhead --namespace bulkhead-system || status=1
    return $status
}

# fence_table FILE: what the scenarios recorded, a row each, in columns.
fence_table() {
    step "The fence: each attack with its wall, and without"
    { printf 'wall\tattack\twith it\twithout it\n'; sort "$1"; } | awk -F '\t' '
        {for (i = 1; i <= NF; i++) {cell[NR, i] = $i; if (length($i) > width[i]) width[i] = length($i)}}
        END {for (r = 1; r <= NR; r++) {for (i = 1; i <= 4; i++) printf "  %-*s", width[i], cell[r, i]; print ""}}'
}

# environment_of NAME: sets `settings` to what scenarios need to know of a cluster.
environment_of() {
    # shellcheck disable=SC1090
    source "$(cluster_environment "$1")"
    settings=(
        "BULKHEAD_E2E_KUBECONFIG=$KUBECONFIG" "BULKHEAD_E2E_KUBECTL=$KUBECTL" "BULKHEAD_E2E_HELM=$HELM"
        "BULKHEAD_E2E_PLUGIN=$PLUGIN" "BULKHEAD_E2E_CHART=$repository/charts/bulkhead" "BULKHEAD_E2E_VALUES=$VALUES"
        "BULKHEAD_E2E_IMAGE_CLI=$IMAGE_CLI" "BULKHEAD_E2E_IMAGE_LEDGER=$IMAGE_LEDGER" "BULKHEAD_E2E_IMAGE_PROBE=$IMAGE_PROBE"
        "BULKHEAD_E2E_FENCE_TABLE=$logs/fence.tsv"
    )
}

# scenarios TARGET...: runs these files of scenarios, of which SCENARIO selects.
scenarios() {
    local targets=()
    for each in "$@"; do targets+=(--test "$each"); done
    # Of the whole workspace, and so with the features that the stages before built everything with.
    env "${settings[@]}" cargo test --workspace --locked --no-fail-fast "${targets[@]}" -- \
        --test-threads="${SCENARIO_THREADS:-4}" ${SCENARIO:+"$SCENARIO"}
}

# Beside the other cluster's scenarios, which wait more than they work; it takes no longer than they do.
unenforced() {
    e2e/up.sh open --nodes 1 --no-network-policy || return 1
    environment_of open
    scenarios unenforced
}

stage_e2e() {
    local flags=() settings status=0
    # The runtimes of an existing cluster are what they are.
    [ -n "$CONTEXT" ] || flags+=(--gvisor)
    rm -f "$logs"/{fence.tsv,e2e.log,e2e-unenforced.log}
    e2e/up.sh test "${flags[@]}" || { failed=$((failed + 1)); return 1; }
    environment_of test
    # Built before both run, so that neither waits for the other's lock on the build.
    cargo test --workspace --locked --no-run --test scenarios --test the_fence --test uninstall --test unenforced || { failed=$((failed + 1)); return 1; }
    if [ -n "$CONTEXT" ]; then
        remark "not run: the scenarios of a cluster that enforces nothing, which is a local one"
    else
        aside e2e-unenforced unenforced
    fi
    tests e2e scenarios scenarios the_fence uninstall || status=1
    # What an API server refuses needs no cluster; here it belongs to the picture.
    case $SCENARIO in *fence*) tests e2e-api-server cargo test --locked -p bulkhead-operator --test api_server fence || status=1 ;; esac
    [ -n "$CONTEXT" ] || join e2e-unenforced || status=1
    [ ! -s "$logs/fence.tsv" ] || fence_table "$logs/fence.tsv"
    [ $status = 0 ] || return 1
    [ -z "$SCENARIO" ] || grep --quiet '^test result: ok\. [1-9]' "$logs"/e2e*.log ||
        { failed=$((failed + 1)); say "no scenario's name contains $SCENARIO"; return 1; }
}

begun=$SECONDS
# What a cluster can't do without is missed before the other stages have taken their time, not after.
if [[ " $* " == *" e2e "* ]]; then e2e/preflight.sh cluster; fi
if [[ " $* " == *" conformance "* ]]; then e2e/conformance.sh install; fi
for stage in "$@"; do
    step "$stage"
    at=$SECONDS
    outcome=ok
    "stage_$stage" || { outcome=failed; broken+=("$stage"); }
    report+=("$(printf '%-12s %-7s %s' "$stage" "$outcome" "$(duration $((SECONDS - at)))")")
done

if [[ " $* " == *" e2e "* ]]; then
    mapfile -t target < <(target test)
    if [[ " ${broken[*]} " == *" e2e "* ]]; then
        remark "logs of the cluster's components: $(cluster "${target[@]}" logs-dir 2> /dev/null || echo "$BULKHEAD_STATE")"
    fi
    names=(test)
    [ -n "$CONTEXT" ] || names+=(open)
    for name in "${names[@]}"; do
        if [ -z "$KEEP" ]; then e2e/down.sh "$name" || broken+=(down); else remark "a cluster stays; make cluster-down CLUSTER=$name"; fi
    done
fi

step "Time"
for line in "${report[@]}"; do say "  $line"; done
if [ -s "$failures" ]; then
    step "What failed"
    cat "$failures"
fi
say ""
[ ${#broken[@]} = 0 ] || say "${red}failed: ${broken[*]}${plain} (logs in ${logs#"$repository"/})"
say "${bold}$passed passed, $failed failed${plain} in $(duration $((SECONDS - begun)))"
[ ${#broken[@]} = 0 ] && [ "$failed" = 0 ]
