"""The agent: one loop between a model and the tools of a conversation."""
