"""The Docker driver: engine, images, sizes, hardening."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from orchestrator.domain.images import Catalogue
from orchestrator.domain.spares import SIZES
from orchestrator.options.base import absolute, listed
from orchestrator.options.runtimes import RuntimeSettings


class ContainerSettings(RuntimeSettings):
    """The Docker driver: engine, images, sizes, hardening."""

    docker_host: str = "unix:///var/run/docker.sock"
    """Docker driver: where the engine listens."""
    runtime_image: str = "nestor-runtime:latest"
    """Docker driver: the image of runtimes whose request names none. `scripts/images` builds it."""
    allowed_images: str = ""
    """Docker driver: comma list of further images that a request may name, as `name`, `name@sha256:...` or the engine's
    id. Empty, because an image is code."""
    canary_image: str | None = None
    """Docker driver: a new image to try out before it becomes `runtime_image`."""
    canary_percent: float = Field(default=0.0, ge=0, le=100)
    """So many of a hundred new conversations whose request names no image begin on it, chosen by their ids."""
    pull_images: Literal["never", "missing"] = "never"
    """Docker driver: whether an image named here that the engine does not have is fetched from its registry when Nestor
    starts, and within two minutes when the engine loses it later. Never, because a name without a registry is anybody's
    on the public one. No start ever waits for one."""
    allowed_sizes: str = ""
    """Docker driver: comma list of sizes that a request may ask for besides 1: 2, 4, 8, so many times the memory,
    processors, processes, open files, log and disk. Empty, because a machine is finite. A tenant may be given
    others."""
    runtime_disk_megabytes: int = Field(default=20_000, ge=0, le=1_000_000)
    """Docker driver: the most that workspace and state of one runtime may take together, in MB, times its size; 0 for
    no limit. It is looked at every ten seconds: one over it is ended, with the reason `disk_full`. No single file may
    be larger. A file, folder or link counts for 16 KB at least. Not 0, because one runtime would fill the disk of
    all."""
    oci_runtime: str | None = None
    """Docker driver: the engine's OCI runtime for containers, such as runsc or kata. One that it does not have is
    refused; nothing falls back to another."""
    seccomp_profile: Path | None = None
    """Docker driver: a profile to use instead of the engine's own."""
    apparmor_profile: str | None = None
    """Docker driver: the name of a profile that this machine has loaded."""
    accept_weaker: str = ""
    """Docker driver: comma list of required rows of the hardening report that may be missing although there are several
    tenants; `all` for whatever it is; `untried` to save the seconds that the report takes. Empty, because each keeps
    tenants apart."""
    container: str | None = None
    """Docker driver, orchestrator in a container that is on a bridge: name or id of that container. Default: found by
    its host name, which is the engine's id of it unless somebody chose another."""
    data_volume: str | None = None
    """Docker driver, orchestrator in a container: the engine's volume that the data folder is on. Workspaces are
    folders of it then, so that they go when it goes."""

    @field_validator("seccomp_profile")
    @classmethod
    def _profile(cls, path: Path | None) -> Path | None:
        return absolute(path)

    @field_validator("allowed_sizes")
    @classmethod
    def _sizes(cls, text: str) -> str:
        if wrong := sorted(listed(text) - set(map(str, SIZES))):
            raise ValueError(f"there is no size {wrong[0][:20]}: a size is {', '.join(map(str, SIZES))}")
        return text

    @model_validator(mode="after")
    def _share(self) -> Self:
        if self.canary_percent and self.canary_image is None:
            raise ValueError("NESTOR_CANARY_PERCENT: there is no NESTOR_CANARY_IMAGE to try out")
        if self.canary_image is not None and self.driver != "docker":
            raise ValueError(f"NESTOR_CANARY_IMAGE: the {self.driver} driver has no images")
        return self

    @property
    def sizes(self) -> frozenset[int]:
        """The sizes that every tenant's requests may ask for."""
        return self.known_sizes & (frozenset(map(int, listed(self.allowed_sizes))) | {1})

    @property
    def known_sizes(self) -> frozenset[int]:
        """Those that runtimes can have. A process has no limits that a size could be a multiple of."""
        return frozenset({1} if self.driver == "process" else SIZES)

    @property
    def runtime_variables(self) -> Mapping[str, str]:
        """What every runtime finds in its environment; no secret. Another agent server does not look at it."""
        most = self.version_megabytes
        if self.driver == "docker" and self.runtime_disk_megabytes:
            most = min(most, self.runtime_disk_megabytes // 8)
        return {"NESTOR_RUNTIME_VERSION_MEGABYTES": str(most)}

    @property
    def accepted(self) -> frozenset[str]:
        return listed(self.accept_weaker)

    @property
    def catalogue(self) -> Catalogue | None:
        """The images of runtimes; None where those are made of none."""
        if self.driver != "docker":
            return None
        return Catalogue(self.runtime_image, listed(self.allowed_images), self.canary_image, self.canary_percent)
