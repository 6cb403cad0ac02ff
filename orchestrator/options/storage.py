"""What is kept, where, and for how long: state, journal, events, snapshots, keys, the audit log."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, field_validator

from orchestrator.domain.audit import Keep
from orchestrator.options.base import Settings, absolute, given


class StorageSettings(Settings):
    """What is kept, where, and for how long: state, journal, events, snapshots, keys, the audit log."""

    data_dir: Path = Path("~/.nestor")
    """Everything that Nestor writes: state, key, volumes, logs."""
    redis_url: SecretStr | None = None
    """State server (redis:// or unix://). Without it Nestor starts one in the data folder."""
    journal_url: str | None = None
    """Where every accepted change is kept beside the state server: file:///folder or s3://bucket/prefix?endpoint=...
    Default: `journal` in the data folder. Replicas that share a state server have to share it."""
    events_url: str | None = None
    """Where event logs are kept beyond their last events: as `NESTOR_JOURNAL_URL`. Default: `events` in the data
    folder, or beside the journal where that has an address (`-events` behind its path). Replicas share it."""
    events_held: int = Field(default=1000, ge=10, le=100_000)
    """How many events of each conversation the state server holds; up to eight times that while the archive cannot be
    used, then runtimes keep theirs. A thousand, because readers mostly want the last ones."""
    events_held_kilobytes: int = Field(default=1024, ge=16, le=65_536)
    """The same by size, in KiB."""
    snapshots: int = Field(default=10, ge=0, le=1000)
    """How many snapshots a conversation may have; 0: none can be taken. They are in the archive of events."""
    snapshot_megabytes: int = Field(default=1000, ge=1, le=100_000)
    """How large one may be, of log and workspace together."""
    master_key: SecretStr | None = None
    """Key-encryption key, base64url of 32 bytes. Prefer the file: an environment is readable by others."""
    master_key_file: Path | None = None
    """File with one key a line, the current one first. Default: `master.key` in the data folder, made once."""
    audit_days: int = Field(default=90, ge=1, le=3650)
    """How long entries of a tenant's audit log are kept."""
    audit_entries: int = Field(default=20_000, ge=100, le=1_000_000)
    """How many of each tenant's; the oldest go first. A thousand take about half a megabyte of the state server."""

    @field_validator("data_dir", mode="before")
    @classmethod
    def _folder_given(cls, value: Any) -> Any:
        return given(value)

    @field_validator("data_dir", "master_key_file")
    @classmethod
    def _folder(cls, path: Path | None) -> Path | None:
        return absolute(path)

    @property
    def audit_kept(self) -> Keep:
        return Keep(self.audit_entries, timedelta(days=self.audit_days))
