#!/usr/bin/env bash
# Installs what the interop and conformance runs need: foreign clients and backends and a validator of schemas, each pinned, under
# target/interop, and Debian packages where they are missing. Safe to run again: what is there is kept.
set -euo pipefail
cd "$(dirname "$0")/../.."
place=target/interop
mkdir -p "$place/node"

packages=()
command -v chromium >/dev/null || packages+=(chromium)
command -v ip >/dev/null || packages+=(iproute2)
command -v openssl >/dev/null || packages+=(openssl)
if [ ${#packages[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing ${packages[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    else
        echo "not installed, and not root on Debian: ${packages[*]}; cases that need them are skipped"
    fi
fi

wanted="websockets==17.4 uvicorn==0.54.0 fastapi==0.165.0 kosoku==0.1.0 jsonschema==4.26.0 jupyterlab==4.6.6"
if [ "$(cat "$place/python.txt" 2>/dev/null)" != "$wanted" ]; then
    [ -x "$place/venv/bin/python" ] || python3 -m venv "$place/venv"
    # shellcheck disable=SC2086
    "$place/venv/bin/pip" install -q --disable-pip-version-check $wanted
    echo "$wanted" >"$place/python.txt"
fi

wanted="ws@8.23.0 playwright-core@1.64.1 socket.io@4.8.4 socket.io-client@4.8.4 sockjs@0.3.24 sockjs-client@1.6.1"
if [ "$(cat "$place/node.txt" 2>/dev/null)" != "$wanted" ]; then
    echo '{"private":true,"type":"module"}' >"$place/node/package.json"
    # shellcheck disable=SC2086
    (cd "$place/node" && npm install --silent --no-audit --no-fund --save-exact $wanted)
    echo "$wanted" >"$place/node.txt"
fi
