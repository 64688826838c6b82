#!/usr/bin/env bash
# Looks at the machine before anything is started: says what will be installed and built and how long that takes, and
# ends with the way out when something cannot be had. Asks nothing.
#   preflight.sh [cluster|tools|conformance|bench]
#   preflight.sh profdata    prints where llvm-profdata of rustc's LLVM is
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

purpose="${1:-cluster}"

# Packages by the program that shows whether they are there.
packages=(buildah:buildah runc:runc ipset:ipset iptables:iptables conntrack:conntrack ip:iproute2 ethtool:ethtool
    socat:socat cc:gcc git:git curl:curl)

missing_packages() {
    for entry in "${packages[@]}"; do
        PATH="$PATH:/usr/sbin:/sbin" type -P "${entry%%:*}" > /dev/null || printf '%s\n' "${entry#*:}"
    done
}

require_linux() {
    [ "$(uname -s)" = Linux ] || fail "clusters and images are made of Linux namespaces, and this is $(uname -s)." \
        "Run this in a Debian virtual machine, or in a privileged container of Debian."
    [ "$(id -u)" = 0 ] || fail "nodes, networks and images need root, and this is $(id -un)." \
        "Run it as root (sudo --preserve-env=PATH,HOME make ...), or in a virtual machine." \
        "Without root there is 'make check', and the Helm chart for a cluster that you have (README.md)."
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    type -P apt-get > /dev/null || fail "these are missing: ${missing[*]}" \
        "Install them with this system's package manager; only apt-get is known here."
    say "installing Debian packages: ${missing[*]}"
    local log="$BULKHEAD_CACHE/log/apt.log"
    mkdir -p "${log%/*}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install --yes --quiet --no-install-recommends "${missing[@]}" > "$log" 2>&1 ||
        { apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends "${missing[@]}"; } > "$log" 2>&1 ||
        fail "apt-get could not install ${missing[*]} ($log):" "$(tail -3 "$log")" \
            "Check the network and /etc/apt/sources.list.d, or install them by hand."
}

# version_at_least HAVE WANT
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -1)" = "$2" ]; }

require_compilers() {
    type -P cargo > /dev/null || fail "there is no cargo on the PATH." "Install Rust 1.95 or later: https://rustup.rs"
    local rust go
    rust="$(rustc --version | awk '{print $2}')"
    version_at_least "$rust" 1.95.0 || fail "Rust 1.95 or later is needed, and this is $rust." "Run: rustup update stable"
    type -P go > /dev/null || fail "Helm, cert-manager and the local cluster are built from Go modules, and there is no go on the PATH." \
        "Install Go 1.26 or later: https://go.dev/dl"
    go="$(GOTOOLCHAIN=local go env GOVERSION)"
    version_at_least "${go#go}" 1.26 || fail "Go 1.26 or later is needed, and this is ${go#go}." \
        "Install it from https://go.dev/dl"
}

# Whole GiB that are free for what is kept.
free_room() { echo $(($(df --output=avail -k "$BULKHEAD_CACHE" | tail -1) / 1024 / 1024)); }

# make_room GIB: where less is free, what the compiler keeps of every program it ever made, to make the next one faster,
# goes. It grows without end, and costs minutes when it is gone, no result.
make_room() {
    local kept had
    had=$(free_room)
    [ "$had" -lt "$1" ] || return 0
    for kept in "$CARGO_TARGET_DIR"/*/incremental; do
        # Not under the hands of a Cargo that is compiling.
        [ -d "$kept" ] && flock --nonblock "${kept%/*}/.cargo-lock" rm -rf "$kept" || continue
        say "  $had GiB were free, and $(free_room) GiB are now: $kept is removed, and compiling slower once."
    done
}

# What is not built yet, in minutes on two idle cores.
announce() {
    local minutes=0 room=3
    if [ ! -d "$CARGO_TARGET_DIR/quick-release/deps" ]; then
        say "  Bulkhead's programs are compiled                     about 12 min, once"
        minutes=$((minutes + 12)) room=$((room + 6))
    fi
    if [ -z "$CONTEXT" ] && ! compgen -G "$BULKHEAD_CACHE/bin/kubernetes-*/kubelet" > /dev/null; then
        say "  Kubernetes and its company are built from Go modules about 14 min, once"
        minutes=$((minutes + 14)) room=$((room + 9))
    fi
    if [ $minutes -gt 0 ]; then
        say "  In all about $minutes min on two idle cores; the next time takes a minute or two."
        say "  Downloads and results are kept in $BULKHEAD_CACHE."
    else
        say "  Everything big is built already, in $BULKHEAD_CACHE."
    fi
    mkdir -p "$BULKHEAD_CACHE"
    # More than is needed now: a run of all tests takes a few GiB on its way.
    make_room $((room + 7))
    local free
    free=$(free_room)
    [ "$free" -ge "$room" ] || fail "$BULKHEAD_CACHE has $free GiB free, and $room GiB are needed." \
        "Make room, or name another folder: BULKHEAD_CACHE=/big/folder make ..."
    local memory
    memory=$(($(awk '/^MemAvailable/ {print $2}' /proc/meminfo) / 1024))
    [ "$memory" -ge 3000 ] || fail "$memory MiB of memory are available, and a cluster with two tenants needs 3000." \
        "End something, or use a larger machine."
}

# Cargo's downloads are the first that need a network, so they show whether there is one.
require_crates() {
    cargo fetch --locked --quiet 2> /dev/null && return 0
    local reason
    reason="$(cargo fetch --locked 2>&1 | tail -3 || true)"
    fail "Cargo could not download the crates:" "$reason" \
        "Check the network, or the registry mirror in ~/.cargo/config.toml; then run the same command again."
}

# What needs a few packages and no cluster; root only to install them.
packages_for() {
    packages=("${@:2}")
    local missing
    missing="$(missing_packages)"
    [ -z "$missing" ] || [ "$(id -u)" = 0 ] ||
        fail "$1 needs" "$missing" "Install them: apt-get install --no-install-recommends ${missing//$'\n'/ }"
    install_packages
}

python=(python3:python3)
# Debian has the module in a package of its own, which brings no program.
python3 -c 'import venv, ensurepip' 2> /dev/null || python+=(the-module-venv:python3-venv)

# llvm-profdata reads what programs counted that rustc's LLVM made. rustup has it as a component, Debian as a package.
profdata() {
    local llvm host
    llvm="$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')"
    host="$(rustc -vV | sed -n 's/^host: //p')"
    type -P "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" && return 0
    packages_for "a release" "llvm-profdata-$llvm:llvm-$llvm" >&2
    type -P "llvm-profdata-$llvm" || fail "there is no llvm-profdata of LLVM $llvm." "Run: rustup component add llvm-tools"
}

case "$purpose" in
    conformance) packages_for "the MCP conformance stage" "${python[@]}" npm:npm && exit 0 ;;
    bench) packages_for "the benchmark" "${python[@]}" && exit 0 ;;
    profdata) profdata && exit 0 ;;
esac
require_linux
if [ "$purpose" = tools ]; then
    install_packages
    say "the packages are there"
    exit 0
fi
step "What this machine needs"
announce
install_packages
require_compilers
require_crates
