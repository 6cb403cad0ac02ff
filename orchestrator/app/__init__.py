"""The only place where settings choose implementations, and where everything is started and ended."""
