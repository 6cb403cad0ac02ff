"""Asks the runtime for a git token; git starts this file by itself, with the standard library only.

`git credential` protocol on standard input and output (see gitcredentials(7)). The runtime decides by protocol, host
and path whether there is a token, so this file holds nothing and stores nothing: `store` and `erase` are ignored.
The socket's path comes in NESTOR_GIT_SOCKET. No answer makes git fail without asking anybody.
"""

import os
import socket
import sys

SECONDS = 10
MOST_BYTES = 64 * 1024


def main() -> int:
    """Answer git's `get`; anything else does nothing. Always 0: no credential is a valid answer."""
    path = os.environ.get("NESTOR_GIT_SOCKET")
    if sys.argv[1:] != ["get"] or not path:
        return 0
    request = sys.stdin.buffer.read(MOST_BYTES)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(SECONDS)
            connection.connect(path)
            connection.sendall(request + b"\n")
            connection.shutdown(socket.SHUT_WR)
            while answer := connection.recv(4096):
                sys.stdout.buffer.write(answer)
    except OSError as error:
        sys.stderr.write(f"git credentials are not available: {error.strerror or error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
