"""`python -m orchestrator` is `nestor`."""

from orchestrator.cli import main

if __name__ == "__main__":
    main()
