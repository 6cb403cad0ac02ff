"""A server that stands in for an agent server where a test looks at the driver alone: quick to start, and obedient.

POST /run {"argv"} answers what that command printed; POST /daemon starts a process that has left its session, its
parent and its environment, and answers its number as it is known inside; POST /exit {"code"} ends the server.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DAEMON = """
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
pid = os.fork()
if pid:
    print(pid)
    sys.stdout.flush()
    os._exit(0)
for number in range(3):
    os.close(number)
os.execve("/bin/sleep", ["sleep", "1000"], {})
"""


class Routes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"status": "ok"} if self.path == "/alive" else {"pid": os.getpid()})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        match self.path:
            case "/run":
                done = subprocess.run(body["argv"], capture_output=True, text=True)
                self.answer({"out": done.stdout, "err": done.stderr, "code": done.returncode})
            case "/daemon":
                done = subprocess.run([sys.executable, "-c", DAEMON], capture_output=True, text=True)
                self.answer({"pid": int(done.stdout)})
            case "/exit":
                os._exit(body["code"])

    def answer(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def leave(number, frame):
    os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    arguments, _ = parser.parse_known_args()
    sys.stdout.write(f"stand-in on port {arguments.port}\n")
    sys.stdout.flush()
    ThreadingHTTPServer((arguments.host, arguments.port), Routes).serve_forever()
