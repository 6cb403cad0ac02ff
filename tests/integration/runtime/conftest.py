"""The model and the runtime that most tests of this folder talk to; a file that needs another kind has its own."""

from tests.support.runtime_fixtures import model, runtime

__all__ = ["model", "runtime"]
