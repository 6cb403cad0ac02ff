"""Ports of loopback for servers that come back at the same one after they were killed."""

import contextlib
import secrets
import socket

HOST = "127.0.0.1"


def lasting_port() -> int:
    """One that is free, and that the kernel gives nobody meanwhile: it lies below those that it hands out by itself
    (net.ipv4.ip_local_port_range), of which any connection may get one while the server is down."""
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with contextlib.suppress(OSError), socket.create_server((HOST, port)):
            return port
