"""Tells of each RST and ICMP message that arrives on eth0: proof that a vanished peer said nothing."""
import json
import socket
import time

ETH_P_IP, PACKET_OUTGOING = 0x0800, 4


def kind(packet: bytes) -> str | None:
    """`icmp`, `rst`, or nothing of interest."""
    head = (packet[0] & 15) * 4
    if packet[9] == socket.IPPROTO_ICMP:
        return "icmp"
    return "rst" if packet[9] == socket.IPPROTO_TCP and packet[head + 13] & 4 else None


with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP)) as tap:
    tap.bind(("eth0", ETH_P_IP))
    print(json.dumps({"event": "listening"}), flush=True)
    while True:
        packet, address = tap.recvfrom(65536)
        if address[2] == PACKET_OUTGOING or (found := kind(packet)) is None:
            continue
        source = socket.inet_ntoa(packet[12:16])
        about = socket.inet_ntoa(packet[44:48]) if found == "icmp" and len(packet) >= 48 else None
        print(json.dumps({"event": found, "from": source, "about": about, "at": time.monotonic()}), flush=True)
