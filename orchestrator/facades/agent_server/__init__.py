"""The API's own origin as an agent server: what of it is answered here. All else goes to a runtime through the proxy
(`proxy/single_origin.py`)."""
