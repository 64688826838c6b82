#!/usr/bin/env bash
# Compiles sidecars that leave out a part of a call, so that what it costs can be measured: without.sh FOLDER
#
# The sidecar has no switch for that, and gets none: each is made of patched sources (*.patch beside this script), and by
# the profile of the whole one, which release.sh has left.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
source e2e/profiled.sh

patches="$repository/e2e/bench/without"
whole="$BULKHEAD_STATE/release/bulkhead-proxy"
made="$CARGO_TARGET_DIR/without"

[ $# = 1 ] || fail "where do the programs go?" "Name a folder: e2e/bench/without.sh FOLDER"
[ -f "$whole" ] || fail "there is no whole sidecar." "Compile it first: e2e/release.sh $BULKHEAD_STATE/release bulkhead-proxy"
mkdir -p "$1" "$made"
folder="$(cd "$1" && pwd)"
key="$(cat "$whole" "$patches"/*.patch "$patches.sh" | sha256sum)"

# compile NAME PATCH...
compile() {
    local name="$1" source="$made/source" patch
    shift
    say "compiling a sidecar that leaves out $*: about 3 min"
    rm -rf "$source"
    mkdir "$source"
    # All of it counts as just written: what the one before was made of must not pass for this one's.
    git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from - | tar --extract --touch --directory "$source" ||
        fail "the sources could not be copied to $source." "Is a file gone that Git knows?"
    for patch; do
        (cd "$source" && GIT_CEILING_DIRECTORIES="$made" git apply "$patches/$patch.patch") ||
            fail "$patch.patch doesn't fit the sources any more." "Make it anew: it must leave out $patch and nothing else."
    done
    # Rust tells of what a patch leaves unused, LLVM of functions that the profile no longer fits.
    (cd "$source" && compile_by_profile "$made/target") > "$made/$name.log" 2>&1 ||
        fail "the sidecar of $* doesn't compile ($made/$name.log):" "$(tail -5 "$made/$name.log")" "Mend the patch."
    cp "$made/target/$host/release/bulkhead-proxy" "$folder/$name"
}

[ "$(cat "$folder/key" 2> /dev/null)" != "$key" ] || exit 0
rm -f "$folder/key"
compile credential credential
compile records records
compile both credential records
printf '%s\n' "$key" > "$folder/key"
