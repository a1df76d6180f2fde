#!/usr/bin/env bash
# Round trips of twenty clients, calm and then beside one that receives as fast as it goes (with `sends`: that sends messages of
# 64 KiB and has them echoed, 16 at a time), on a machine of two cores: Pulsegate alone has the first one; clients and
# backends share the second, on which those that are measured go before the flood. Linux, as root.
#
#     PULSEGATE=target/release/pulsegate LOAD=target/release/examples/load benches/compare/fair.sh [tls] [sends]
set -eu
PULSEGATE=${PULSEGATE:-target/release/pulsegate} LOAD=${LOAD:-target/release/examples/load}
url=ws://127.0.0.1:28030
flooding=(sub /source/65536/0)
for word; do
    case $word in
    tls) url=wss://127.0.0.1:28031 ;;
    sends) flooding=(rtt /flood --size 65536 --inflight 16) ;;
    *) echo "fair.sh: \`$word\` is neither \`tls\` nor \`sends\`" >&2 && exit 2 ;;
    esac
done
run=$(mktemp -d)
started=()
finish() {
    kill "${started[@]}" 2>/dev/null || true
    rm -rf "$run"
}
trap finish EXIT
first="taskset -c 1 chrt -f 50" second="taskset -c 1"

"$LOAD" certificate "$run"
cat >"$run/gateway.toml" <<T
[gateway]
workers = 1
[log]
level = "warn"
[[listener]]
address = "127.0.0.1:28030"
[[listener]]
address = "127.0.0.1:28031"
tls = { certificate = "cert.pem", key = "key.pem" }
[[route]]
path = "/echo"
upstream = "echo"
[[route]]
path = "/"
upstream = "source"
[upstream.echo]
servers = ["ws://127.0.0.1:28032"]
[upstream.source]
servers = ["ws://127.0.0.1:28033"]
T
$first "$LOAD" serve --listen 127.0.0.1:28032 >/dev/null &
started+=($!)
$second "$LOAD" serve --listen 127.0.0.1:28033 >/dev/null &
started+=($!)
taskset -c 0 "$PULSEGATE" run --config "$run/gateway.toml" &
started+=($!)
for port in 28030 28031 28032 28033; do
    until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "${started[@]}" # which says who is not there
        sleep 0.1
    done
done
trips() { $first "$LOAD" rtt "$url/echo" --conns 20 --size 64 --secs 5 --rate 1000 --insecure --quiet; }
echo "calm"
trips
$second "$LOAD" "${flooding[0]}" "$url${flooding[1]}" "${flooding[@]:2}" --conns 1 --secs 9 --insecure --quiet >"$run/flood" &
flood=$!
started+=($flood)
sleep 1.2
echo "flooded"
trips
wait $flood
echo "the flood"
cat "$run/flood"
