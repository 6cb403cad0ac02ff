"""The process from which runtimes are forked: it has imported everything once, and serves nobody itself."""
