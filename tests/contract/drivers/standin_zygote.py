"""A zygote whose runtimes are the stand-in server: `python -I standin_zygote.py --socket-fd N`.

It is the shipped program in everything but what is served, so that tests can ask a forked process about itself.
"""

import os
import signal
import socket
import sys
from http.server import ThreadingHTTPServer
from pathlib import Path

from runtime.zygote.__main__ import main

sys.path.append(str(Path(__file__).parent))
import standin_server


def serve(arguments):
    signal.signal(signal.SIGTERM, standin_server.leave)
    listener = socket.socket(fileno=int(arguments[arguments.index("--listen-fd") + 1]))
    os.close(int(arguments[arguments.index("--boot-key-fd") + 1]))
    server = ThreadingHTTPServer(listener.getsockname(), standin_server.Routes, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    sys.stdout.write(f"stand-in on port {listener.getsockname()[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main(serve=serve, preload=lambda: ()))
