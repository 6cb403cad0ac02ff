"""The journal: every accepted change, in order and hash-chained, in files or object storage beside the state server.

`scripts/*.lua` note a change in their tenant's stream in the same step as the change; `shipper.py` moves streams to an
`archive.py` (`files.py`, `objects.py`); `folded.py` says what is known after all of it; `restoring.py` writes that into
an empty state server.
"""
