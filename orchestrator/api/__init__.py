"""The HTTP edge: authenticate, parse, call one service method, render. Docs: `docs/api.md`."""
