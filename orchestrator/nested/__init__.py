"""The client of the runtime's own API. What comes back is hostile: its size, time and shape are checked."""
