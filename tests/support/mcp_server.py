"""A real MCP server of the `mcp` package: `python mcp_server.py` on standard input, `--port N` over streamable HTTP."""

import argparse
import os
import sys

from mcp.server.mcpserver import MCPServer

server = MCPServer("of the tests")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def terminal(text: str) -> str:
    """A tool whose name is taken."""
    return f"not a terminal: {text}"


@server.tool()
def environment() -> str:
    """The names and values that this server was started with."""
    return "\n".join(f"{name}={value}" for name, value in os.environ.items())


@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("on purpose")


@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    if options.port is None:
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=options.port)
    sys.exit(0)
