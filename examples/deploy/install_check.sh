#!/usr/bin/env bash
# Installs a package, runs what it brought, removes it, and purges it: install_check.sh FILE.deb. All in an overlay over this
# machine's own file system and in namespaces of its own, so that nothing stays. Needs root, and Debian or its like.
set -euo pipefail
[ "${inside:-}" = yes ] || {
    if [ "$(id -u)" != 0 ] || ! unshare --mount --net --pid --fork true 2>/dev/null; then
        echo "skipped: installing wants root and namespaces"
        exit
    fi
    inside=yes exec unshare --mount --net --pid --fork bash "$0" "$(realpath "$1")"
}

# Gone with the namespace.
place=$(mktemp -d)
mount -t tmpfs tmpfs "$place"
mkdir "$place"/{upper,work,root}
root=$place/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$root" || {
    echo "skipped: no overlay over this file system"
    exit
}
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
cp "$1" "$root/package.deb"

chroot "$root" bash -euo pipefail <<'INSIDE'
fail() { echo "install: $*" >&2; exit 1; }
quietly() { "$@" >/out 2>&1 || { cat /out; fail "$* failed"; }; }
quietly dpkg --install /package.deb
getent passwd pulsegate >/dev/null || fail "no user"
[ "$(stat -c %a /etc/pulsegate/tls)" = 700 ] || fail "the folder of keys is open"
ip link set lo up
setpriv --reuid pulsegate --regid pulsegate --clear-groups pulsegate run --config /etc/pulsegate/gateway.toml >/log 2>&1 &
for _ in $(seq 100); do
    pulsegate probe ws://127.0.0.1:8080/ --count 1 --watch 0s --json >/found 2>/dev/null && break
    sleep 0.1
done
grep -q '"answered":1' /found || { cat /log /found; fail "it does not answer"; }
kill %1
wait %1 || fail "it did not drain"
quietly dpkg --remove pulsegate
[ -e /etc/pulsegate/gateway.toml ] || fail "removing took the configuration"
quietly dpkg --purge pulsegate
[ ! -e /etc/pulsegate ] && ! getent passwd pulsegate >/dev/null || fail "purging left something behind"
echo "install: installed, ran, drained, removed and purged"
INSIDE
