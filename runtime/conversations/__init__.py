"""Conversations: their state, their folder on disk, and the service that makes, runs and removes them."""
