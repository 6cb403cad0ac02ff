"""Where runtimes run. `base.py` is the contract; every other file is one place to run them."""
