"""Use cases. No framework, no engine, no Redis: services see drivers, stores and runtimes through their contracts."""
