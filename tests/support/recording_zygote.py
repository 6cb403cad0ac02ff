"""The zygote that ships, with runtimes that note at their end what they had to import themselves.

    python -I recording_zygote.py --socket-fd N

The names go to the file `imported` in the runtime's directory, in the order in which they were imported.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.__main__ import main as serve
from runtime.zygote.__main__ import main


def serve_and_note(arguments: Sequence[str]) -> int:
    known = set(sys.modules)
    directory = Path.cwd()
    try:
        return serve(arguments)
    finally:
        (directory / "imported").write_text("\n".join(name for name in sys.modules if name not in known))


if __name__ == "__main__":
    sys.exit(main(serve=serve_and_note))
