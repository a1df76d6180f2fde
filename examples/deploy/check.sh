#!/usr/bin/env bash
# Looks at a package before anybody installs it: check.sh FILE.deb. Checks that need a tool which is missing are skipped, aloud.
set -euo pipefail
package=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { printf 'package: %s\n' "$*" >&2 && exit 1; }
has() { command -v "$1" >/dev/null || { echo "skipped: no $1" && return 1; }; }

dpkg-deb --extract "$package" "$work/root"
dpkg-deb --control "$package" "$work/control"
for file in usr/bin/pulsegate usr/lib/systemd/system/pulsegate.service usr/share/man/man1/pulsegate.1.gz \
    usr/share/man/man1/pulsegate-check.1.gz usr/share/bash-completion/completions/pulsegate etc/pulsegate/gateway.toml \
    usr/share/doc/pulsegate/copyright usr/share/doc/pulsegate/changelog.gz usr/share/pulsegate/gateway.schema.json; do
    [ -s "$work/root/$file" ] || fail "$file is missing or empty"
done
[ -z "$(find "$work/root" -perm /022 ! -type l)" ] || fail "files that others may write"
dpkg-deb --contents "$package" | awk '$2 != "root/root" { bad = 1; print } END { exit bad }' || fail "files that are not root's"
for script in postinst prerm postrm; do
    sh -n "$work/control/$script" || fail "$script is no shell script"
done
(cd "$work/root" && md5sum --quiet --check "$work/control/md5sums") || fail "the sums do not fit"

# It runs, and takes the configuration it brings.
"$work/root/usr/bin/pulsegate" check --config "$work/root/etc/pulsegate/gateway.toml" >/dev/null || fail "its gateway.toml does not pass its check"

if has systemd-analyze; then
    # The program is not installed here: its path is that of the copy. Versions before 253 do not know notify-reload.
    mkdir "$work/units"
    for unit in "$work"/root/usr/lib/systemd/system/*; do
        sed "s|/usr/bin/pulsegate|$work/root/usr/bin/pulsegate|" "$unit" >"$work/units/$(basename "$unit")"
    done
    complaints=$(SYSTEMD_UNIT_PATH="$work/units:" systemd-analyze verify --man=no "$work"/units/* 2>&1 |
        grep 'pulsegate\.' | grep -v 'notify-reload' || true)
    [ -z "$complaints" ] || fail "$complaints"
fi
if has lintian; then
    lintian --fail-on error "$package" || fail "lintian objects"
fi
if python3 -c 'import jsonschema' 2>/dev/null; then
    python3 "$here/check_schema.py" "$work/root/usr/share/pulsegate/gateway.schema.json" || fail "the schema does not fit"
else
    echo "skipped: no Python module jsonschema"
fi
echo "package: $(basename "$package") passes"
