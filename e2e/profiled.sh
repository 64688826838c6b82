# shellcheck shell=bash
# Compiles the sidecar by a profile. Sourced after lib.sh.

# With a target of its own, what only runs while it compiles is compiled as ever.
host="$(rustc -vV | sed -n 's/^host: //p')"
profiled="$CARGO_TARGET_DIR/profiled"
profile="$profiled/proxy.profdata"

# compile_sidecar TARGET_DIR RUSTFLAGS [LINKER FLAG...]: of the sources in this folder.
compile_sidecar() {
    local target_dir="$1" flags="$2"
    shift 2
    RUSTFLAGS="${RUSTFLAGS:-} $flags" cargo rustc --quiet --release --locked -p bulkhead-proxy --bin bulkhead-proxy \
        --target "$host" --target-dir "$target_dir" -- \
        -Cllvm-args=-enable-split-machine-functions -Clink-arg=-Wl,-z,keep-text-section-prefix \
        -Clink-arg=-Wl,-z,pack-relative-relocs "${@/#/-Clink-arg=-Wl,}"
}

# compile_by_profile TARGET_DIR: by what was counted, what its start executes in one place.
compile_by_profile() {
    local order=()
    # Another linker doesn't know the flag.
    if grep --quiet --text "Linker: LLD" "$profiled/counting"; then
        order=("--symbol-ordering-file=$profiled/start" --no-warn-symbol-ordering)
    fi
    compile_sidecar "$1" "-Cprofile-use=$profile" "${order[@]}"
}
