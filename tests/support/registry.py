"""A registry of images on loopback, in a process of its own, that can be ended, started again, and damaged.

The program is Debian's `docker-registry` (.ci/engine fetches it). An engine takes loopback for a registry without TLS.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

from support import containers
from support.ports import HOST, lasting_port

_SECONDS = 60
_CONFIGURATION = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {folder}/images}}
http: {{addr: {address}}}
"""
_open = build_opener(ProxyHandler({})).open


class Registry:
    """`folder` keeps what is pushed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"{HOST}:{lasting_port()}"
        (folder / "registry.yml").write_text(_CONFIGURATION.format(folder=folder, address=self.address))

    def start(self) -> None:
        """Have it running, and answering."""
        program = shutil.which("docker-registry")
        assert program is not None, "there is no docker-registry: run .ci/engine, or leave out the tests marked docker"
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen([program, "serve", f"{self._folder}/registry.yml"], stdout=log, stderr=log)
        until = time.monotonic() + _SECONDS
        while True:
            try:
                _open(f"http://{self.address}/v2/", timeout=5).close()
                return
            except OSError:
                running = self._process.poll() is None and time.monotonic() < until
                assert running, (self._folder / "log").read_text()[-2000:]
                time.sleep(0.05)

    def end(self) -> None:
        """Nobody answers there any more. Ended already: fine."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_SECONDS)

    def push(self, image: str, name: str) -> str:
        """The engine's image of that id or name as `name` of this registry; answers its digest. The engine forgets the
        new name again, not the image."""
        full = f"{self.address}/{name}"
        containers.docker("tag", image, full)
        containers.docker("push", "--quiet", full)
        containers.docker("image", "rm", full)
        repository, _, tag = name.partition(":")
        return str(self._asked(repository, tag).headers["Docker-Content-Digest"])

    def layer_of(self, name: str) -> Path:
        """The file that it has of an image's last layer, to be damaged."""
        repository, _, tag = name.partition(":")
        manifest = json.loads(self._asked(repository, tag).read())
        digest = str(manifest["layers"][-1]["digest"]).removeprefix("sha256:")
        path = self._folder / "images/docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"
        assert path.is_file()
        return path

    def _asked(self, repository: str, tag: str):  # type: ignore[no-untyped-def]
        accepted = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        return _open(Request(f"http://{self.address}/v2/{repository}/manifests/{tag}", headers=accepted), timeout=10)


@contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """For the length of the block, running."""
    made = Registry(folder)
    try:
        made.start()
        yield made
    finally:
        made.end()
