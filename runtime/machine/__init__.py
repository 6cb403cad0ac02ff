"""The machine that a runtime is, for callers with its key: commands, files, git. Knows no conversation and no HTTP."""
