"""Whether somebody accepts connections at an address, asked by nothing but a connection.

A start asks this again and again while its runtime comes up. An HTTP client takes milliseconds of the processor for
each connection that is refused, and the runtime that is waited for has use for them. Knows nothing of what is spoken.
"""

import asyncio
import ipaddress
import socket

from httpcore import URL


async def listens(origin: str) -> bool:
    """Whether a connection to `origin` (http://host:port) is accepted now. True as well for a host that is a name: its
    addresses are the HTTP client's to find. Ends only by the caller's deadline where nothing comes back at all."""
    url = URL(origin)
    host, port = url.host.decode(), url.port or url.origin.port
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return True
    with socket.socket(family, socket.SOCK_STREAM) as knock:
        knock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(knock, (host, port))
        except OSError:
            return False
    return True
