"""The runtime API: what `APIRemoteWorkspace` and servers with a remote runtime call (contract outer-api.md 3)."""
