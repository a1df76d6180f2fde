#!/usr/bin/env bash
# Builds what an operator installs: a .deb (program, unit, user, man pages, completions, schema, docs), an archive of the
# same, and a bill of materials, in target/package.
#
#   bash examples/deploy/package.sh --vendor           once, with network: all sources to target/vendor
#   bash examples/deploy/package.sh                    from then on without network: builds, packs, checks
#   bash examples/deploy/package.sh --binary FILE      packs a program that is built already
#
# Needs a Rust toolchain, a C compiler, Python 3.11 and dpkg-deb. SOURCE_DATE_EPOCH sets all times (the last commit's, if not
# given), so that the same sources make the same package; DEBEMAIL names who answers for it.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=target/package vendor=target/vendor binary=
maintainer=${DEBEMAIL:-Pulsegate <pulsegate@example.com>}

say() { printf -- '-- %s\n' "$*"; }

vendor() {
    say "vendoring all sources to $vendor"
    cargo vendor --locked --versioned-dirs "$vendor" >/dev/null
    # Read from the folder above it, as .cargo/config.toml would be.
    printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "%s"\n' "${vendor##*/}" >"$vendor/config.toml"
}

while [ $# -gt 0 ]; do
    case $1 in
    --vendor) vendor && exit ;;
    --binary) binary=$2 && shift ;;
    --out) out=$2 && shift ;;
    *) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    shift
done

offline=()
[ ! -e "$vendor/config.toml" ] || offline=(--config "$vendor/config.toml")
if [ -z "$binary" ]; then
    say "building, without network"
    cargo build --release --frozen "${offline[@]}"
    binary=target/release/pulsegate
fi
version=$("$binary" --version | cut -d' ' -f2)
architecture=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
export SOURCE_DATE_EPOCH

say "packing pulsegate $version for $architecture"
root=$out/root
rm -rf "$out"
mkdir -p "$root" "$out/generated"
"$binary" generate "$out/generated"
"$binary" schema >"$out/gateway.schema.json"
python3 examples/deploy/sbom.py "${offline[@]}" >"$out/pulsegate-$version.cdx.json"

put() { install -D -m "${3:-0644}" "$1" "$root/$2"; }
put "$binary" usr/bin/pulsegate 0755
strip --strip-unneeded "$root/usr/bin/pulsegate"
put examples/deploy/systemd/pulsegate.service usr/lib/systemd/system/pulsegate.service
put examples/deploy/systemd/pulsegate.socket usr/lib/systemd/system/pulsegate.socket
put gateway.toml etc/pulsegate/gateway.toml
put "$out/gateway.schema.json" usr/share/pulsegate/gateway.schema.json
put "$out/generated/pulsegate.bash" usr/share/bash-completion/completions/pulsegate
put "$out/generated/_pulsegate" usr/share/zsh/vendor-completions/_pulsegate
put "$out/generated/pulsegate.fish" usr/share/fish/vendor_completions.d/pulsegate.fish
for page in "$out"/generated/*.1; do
    put "$page" "usr/share/man/man1/$(basename "$page")"
    gzip -9n "$root/usr/share/man/man1/$(basename "$page")"
done
for file in README.md SECURITY.md docs/*.md "$out"/pulsegate-*.cdx.json; do
    put "$file" "usr/share/doc/pulsegate/$(basename "$file")"
done
put CHANGELOG.md usr/share/doc/pulsegate/changelog
cat >"$out/changelog.Debian" <<CHANGELOG
pulsegate ($version-1) unstable; urgency=medium

  * See changelog.gz.

 -- $maintainer  $(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
CHANGELOG
put "$out/changelog.Debian" usr/share/doc/pulsegate/changelog.Debian
gzip -9n "$root"/usr/share/doc/pulsegate/changelog*
{
    printf 'Pulsegate %s is licensed under either of MIT or Apache-2.0, at your option.\n' "$version"
    printf 'The libraries in it and their licences are listed in pulsegate-%s.cdx.json beside this file.\n\n' "$version"
    cat LICENSE-MIT
    printf '\nOn Debian systems the Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0.\n'
} >"$out/copyright"
put "$out/copyright" usr/share/doc/pulsegate/copyright

# The C library that the program was linked against is the least that it runs with.
libc=$(objdump -T "$root/usr/bin/pulsegate" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1 | cut -d_ -f2)
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
tar --create --gzip --file="$out/pulsegate-$version-linux-$architecture.tar.gz" --directory="$root" --sort=name --owner=0 --group=0 \
    --numeric-owner .

mkdir -p "$root/DEBIAN"
for script in postinst prerm postrm; do
    install -m 0755 "examples/deploy/debian/$script" "$root/DEBIAN/$script"
done
echo /etc/pulsegate/gateway.toml >"$root/DEBIAN/conffiles"
(cd "$root" && find usr etc -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
cat >"$root/DEBIAN/control" <<CONTROL
Package: pulsegate
Version: $version-1
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: libc6 (>= $libc), libgcc-s1, passwd
Recommends: ca-certificates
Section: net
Priority: optional
Description: WebSocket gateway with its own heartbeat on both legs
 Pulsegate relays frames between WebSocket clients and their backends, and
 sends pings of its own to both, so that idle connections survive the idle
 timeouts of proxies and NATs on the path, and when one side vanishes the
 other is told so with a close frame.
CONTROL
package=$out/pulsegate_$version-1_$architecture.deb
dpkg-deb --root-owner-group --build "$root" "$package" >/dev/null
rm -rf "$root/DEBIAN"

bash examples/deploy/check.sh "$package"
say "made:"
(cd "$out" && sha256sum -- *.deb *.tar.gz *.cdx.json *.schema.json | tee SHA256SUMS)
