"""What is told about the running system: logs and metrics."""
