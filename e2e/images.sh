#!/usr/bin/env bash
# Builds the container images: what Cargo compiled here, on a base made from Debian packages, without a registry.
#
# An image's tag is the hash of what is in it, so a cluster never runs an older one under the same name, and nothing is
# built twice. Names and archives are written to .run/images.env.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# target:program:repository. What a Containerfile target holds, and what its image is called.
programs=(
    operator:bulkhead-operator:bulkhead-operator
    proxy:bulkhead-proxy:bulkhead-proxy
    cli:kubectl-bulkhead:bulkhead-cli
    ledger:ledger-mcp:ledger-mcp
    probe:bulkhead-probe:bulkhead-probe
)

images="$BULKHEAD_CACHE/images"
log="$BULKHEAD_CACHE/log/images.log"
mkdir -p "$images" "${log%/*}" "$BULKHEAD_STATE"

step "Images"
start=$SECONDS
packages=()
for entry in "${programs[@]}"; do
    IFS=: read -r _ program _ <<< "$entry"
    packages+=(-p "$program")
done
remark "compiling ${#programs[@]} programs"
cargo build --locked --profile quick-release "${packages[@]}"
compile_cluster_tool
base="$(cluster base-image)"
buildah="$BULKHEAD_CACHE/bin/buildah"

exec 9> "$images/lock"
flock 9
context="$(mktemp -d "$images/context.XXXXXX")"
trap 'rm -rf "$context"' EXIT
environment="$context/images.env"
: > "$environment"

# The first 12 hexadecimal digits of the hash of files and texts.
hash_of() { sha256sum | cut -c1-12; }

# build NAME REPOSITORY TAG BUILDAH-ARGUMENTS...: makes the archive unless it is there, and notes it down.
build() {
    local name=$1 reference="localhost/$2:$3" archive="$images/$2-$3.tar" how=unchanged
    shift 3
    if [ ! -f "$archive" ]; then
        how=built
        {
            "$buildah" build --quiet --pull-never --tag "$reference" "$@" &&
                "$buildah" push --quiet "$reference" "docker-archive:$archive.unfinished:$reference" &&
                "$buildah" rmi "$reference"
        } >> "$log" 2>&1 || fail "the image $reference could not be built; $log ends with:" "$(tail -5 "$log")"
        mv "$archive.unfinished" "$archive"
    else
        touch "$archive"
    fi
    printf 'BULKHEAD_IMAGE_%s=%s\nBULKHEAD_ARCHIVE_%s=%s\n' "${name^^}" "$reference" "${name^^}" "$archive" >> "$environment"
    printf '  %-46s %8s  %s\n' "${reference#localhost/}" "$(numfmt --to=iec-i --suffix=B "$(stat -c %s "$archive")")" "$how"
}

for entry in "${programs[@]}"; do
    IFS=: read -r target program repository <<< "$entry"
    file="$CARGO_TARGET_DIR/quick-release/$program"
    rm -rf "$context/binaries"
    mkdir "$context/binaries"
    cp "$file" "$context/binaries/"
    tag="dev-$({ cat Containerfile "$file"; echo "$base"; } | hash_of)"
    build "$target" "$repository" "$tag" --target "$target" --file Containerfile \
        --build-arg BASE="$base" --build-arg BINARIES=prebuilt "$context"
done

# PostgreSQL: its files come from Debian packages and are unpacked once.
fixture=e2e/fixtures/postgres
unpacked="$BULKHEAD_CACHE/postgres/$(hash_of < $fixture/root.sh)"
if [ ! -f "$unpacked/root/etc/postgres-bin" ]; then
    remark "putting PostgreSQL together from Debian packages"
    mkdir -p "$unpacked"
    "$fixture/root.sh" "$unpacked/unfinished" >> "$log" 2>&1 ||
        fail "PostgreSQL could not be downloaded; $log ends with:" "$(tail -5 "$log")" "Run: apt-get update"
    rm -rf "$unpacked/root"
    mv "$unpacked/unfinished" "$unpacked/root"
fi
cp $fixture/{start.sh,ledger.sql} "$unpacked/"
tag="dev-$({ cat $fixture/{root.sh,start.sh,ledger.sql,Containerfile}; } | hash_of)"
build postgres bulkhead-postgres "$tag" --file $fixture/Containerfile \
    --build-arg POSTGRES_BIN="$(cat "$unpacked/root/etc/postgres-bin")" "$unpacked"

# What builds leave behind (buildah forgets the container of a stage that only renames another), and archives that
# nothing has used for a while.
"$buildah" containers --all --format '{{.ContainerID}} {{.ImageName}}' |
    while read -r id image; do [ -n "$image" ] || "$buildah" rm "$id"; done >> "$log" 2>&1
"$buildah" rmi --prune >> "$log" 2>&1 || true
find "$images" -maxdepth 1 -name '*-dev-*.tar*' -mtime +7 -delete
mv "$environment" "$BULKHEAD_STATE/images.env"
remark "in $(duration $((SECONDS - start))); names in ${BULKHEAD_STATE#"$repository"/}/images.env"
