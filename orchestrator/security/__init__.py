"""Sealing, keys, redaction. No I/O beyond reading a key file."""
