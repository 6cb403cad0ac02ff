"""The archive of event logs: what left the state server's streams, in files or object storage, readable by sequence.

`segment.py` is the form of one immutable piece, `archive.py` finds events in the pieces of a log, `places.py` says what
a place for them has to do, `files.py` and `objects.py` are the two places.
"""
