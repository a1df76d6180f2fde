"""A small internet in network namespaces: clients - router - gateway - router - backends.

A host *vanishes* when the router silently drops every packet from and to it: links stay up, nothing is answered, no RST
and no ICMP message comes back.
"""
import asyncio
import contextlib
import itertools
import os
import shutil
import subprocess
import time

from .case import PYTHON, INTEROP, Failure, Scope, Skip
from .processes import Process

NETWORKS = {"client": "10.213.1", "gateway": "10.213.2", "backend": "10.213.3"}


def ip(*arguments: str) -> None:
    """Runs `ip`, and says what it said if it fails."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Internet:
    """Four namespaces; each case takes addresses of its own in them."""

    def __init__(self, prefix: str):
        self.prefix = prefix
        self._hosts = {zone: itertools.count(10) for zone in NETWORKS}

    @classmethod
    async def make(cls, scope: Scope) -> "Internet":
        if os.geteuid() != 0:
            raise Skip("network namespaces need root")
        if not shutil.which("ip"):
            raise Skip("iproute2 is not installed")
        internet = cls(f"pulse{os.getpid()}")
        scope.ending.callback(internet.remove)
        await asyncio.to_thread(internet.build)
        return internet

    def namespace(self, zone: str) -> str:
        return f"{self.prefix}-{zone}"

    def build(self) -> None:
        router = self.namespace("router")
        ip("netns", "add", router)
        ip("-n", router, "link", "set", "lo", "up")
        for number, (zone, network) in enumerate(NETWORKS.items(), 1):
            space = self.namespace(zone)
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
            ip("link", "add", "eth0", "netns", space, "type", "veth", "peer", "name", f"eth{number}", "netns", router)
            ip("-n", router, "address", "add", f"{network}.1/24", "dev", f"eth{number}")
            ip("-n", router, "link", "set", f"eth{number}", "up")
            ip("-n", space, "link", "set", "eth0", "up")
            self._add_host(zone)
            ip("-n", space, "route", "add", "default", "via", f"{network}.1")
        subprocess.run(
            ["ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True, capture_output=True
        )

    async def host(self, zone: str) -> str:
        """A new address in a zone."""
        return await asyncio.to_thread(self._add_host, zone)

    def _add_host(self, zone: str) -> str:
        address = f"{NETWORKS[zone]}.{next(self._hosts[zone])}"
        ip("-n", self.namespace(zone), "address", "add", f"{address}/24", "dev", "eth0")
        return address

    async def vanish(self, address: str) -> float:
        """Every packet from and to the address is dropped without a word from the time on that is returned."""
        return await asyncio.to_thread(self._drop_packets, address)

    def _drop_packets(self, address: str) -> float:
        for direction in ("from", "to"):
            ip("-n", self.namespace("router"), "rule", "add", "blackhole", direction, address, "priority", "100")
        return time.monotonic()

    def remove(self) -> None:
        for zone in [*NETWORKS, "router"]:
            with contextlib.suppress(Failure):
                ip("netns", "delete", self.namespace(zone))

    async def sniff(self, scope: Scope) -> Process:
        """Tells of each RST and ICMP message that reaches the gateway."""
        process = await Process.start(
            scope, PYTHON, "-u", INTEROP / "peers" / "sniffer.py", name="sniffer", namespace=self.namespace("gateway")
        )
        await process.event(10, event="listening")
        return process


async def internet_of(scope: Scope) -> Internet:
    return await asyncio.wait_for(scope.shared("internet", Internet.make), 20)
