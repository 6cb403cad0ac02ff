"""The runtime's HTTP and WebSocket surface: authenticate, parse, call one thing, render."""
