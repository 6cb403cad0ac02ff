"""Bytes between a caller and a runtime. Gets `resolve`, `wake` and `touch` from `app.py` and knows no store."""
