"""The outer half of Nestor: tenants, conversations, provisioning, proxy, state. See `docs/architecture.md`."""
