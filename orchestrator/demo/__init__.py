"""The demo: real servers on loopback (a scripted model, a private git host) and the story played against them.

Nothing outside this package imports it but the command line and tests; it talks to the orchestrator by HTTP alone.
"""
