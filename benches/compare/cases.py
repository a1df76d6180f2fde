"""What is measured: arguments of the load example, and the figure that is compared. Lower is better in all of them."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    load: str  # sub-command and options of the load example
    path: str  # of the backend
    figure: str  # of its result
    unit: str
    what: str
    flood: str = ""  # of the backend, for `fair`

    def arguments(self, secs, conns=None):
        words = self.load.split()
        if conns is not None:
            words += ["--conns", str(conns)]
        return [*words, "--secs", str(secs)]


PER_MESSAGE = ("cpu_us_per_msg", "CPU µs per message")
PER_GIB = ("cpu_s_per_gib", "CPU s per GiB")

# The table of costs.
COSTS = [
    Case("rtt-64", "rtt --conns 50 --size 64", "/echo", *PER_MESSAGE, "64 B there and back, 50 clients"),
    Case("pipe-64x32", "rtt --conns 50 --size 64 --inflight 32", "/echo", *PER_MESSAGE, "the same, 32 in flight each"),
    Case("pipe-64x32-text", "rtt --conns 50 --size 64 --inflight 32 --text", "/echo", *PER_MESSAGE, "the same, text"),
    Case("rtt-64k", "rtt --conns 8 --size 65536", "/echo", *PER_MESSAGE, "64 KiB there and back, 8 clients"),
    Case("sub-64", "sub --conns 4", "/source/64/0", *PER_GIB, "64 B messages as fast as they go, to 4 clients"),
    Case("sub-64k", "sub --conns 4", "/source/65536/0", *PER_GIB, "64 KiB messages as fast as they go, to 4 clients"),
    Case("sub-64k-text", "sub --conns 4", "/source/65536/0/text", *PER_GIB, "the same, text"),
    Case("feed", "sub --conns 500", "/source/256/50", *PER_MESSAGE, "500 clients, 50 messages of 256 B a second each"),
    Case("churn", "churn --conns 20", "/echo", "cpu_us_per_conn", "CPU µs per connection",
         "connect, one message there and back, close; full handshakes"),
    Case("idle", "idle --burst 100 --warmup 4", "/echo", "kib_per_conn", "KiB per session", "idle sessions"),
]

# Cases with a table of their own.
LATENCY = Case("latency", "rtt --conns 50 --size 64", "/echo", "latency_us.p50", "p50 µs",
               "what a proxy adds to a round trip at a tenth of the rate that nginx can do")
FAIR = [
    Case("fair-receive", "fair --conns 20", "/echo", "p99_ratio", "p99 ratio",
         "round trips of 20 clients while one more receives as fast as it goes", "/source/65536/0"),
    Case("fair-send", "fair --conns 20 --send", "/echo", "p99_ratio", "p99 ratio",
         "the same while one more sends as fast as it goes", "/sink"),
]
WORKERS = Case("workers", "rtt --conns 100 --size 64 --inflight 32", "/echo", *PER_MESSAGE,
               "messages a second with two workers, and with one")
SCALE = Case("scale", "idle --burst 100 --warmup 4", "/echo", "kib_per_conn", "KiB per session",
             "idle sessions: 1,000, 2,000, 4,000, 8,000, and what descriptors and ports allow")
SCALES = (1000, 2000, 4000, 8000)
SCALE_SECS = 20  # one ping of the default heartbeat for each leg
IDLE = 4000  # sessions of the case idle, if there are descriptors for them

NAMES = {case.name: case.what for case in [*COSTS, LATENCY]} | {
    "fair": "round trips of 20 clients while one more floods; both ways",
    "workers": WORKERS.what,
    "scale": SCALE.what,
}
