"""What survives a restart. `base.py` is the contract; Redis is the store, `memory/` its twin for unit tests."""
