"""Values and rules. Nothing here does I/O; everything above may import it."""
