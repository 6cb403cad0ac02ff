"""What a runtime holds of its configuration, as it is written down: a digest under the runtime's own key, and names.

Pure. The key makes the digest worth nothing to whoever reads the record: values cannot be tried out against it.
"""

import hashlib
import hmac
import json
from datetime import datetime

from orchestrator.domain.conversation import Held
from orchestrator.domain.secrets import SecretText
from orchestrator.nested.wire import Bundle, pointers, reveal


def held_by(bundle: Bundle, key: SecretText, generation: str, *, at: datetime) -> Held:
    """`bundle`, pushed at `at`."""
    providers = [[item.name, item.token.open(), item.host, item.user_id] for item in bundle.providers]
    secrets = {name: value.open() for name, value in bundle.secrets.items()}
    settings = {part: value for part, value in bundle.settings.items() if part != "limits"}  # no runtime is told these
    content = [reveal(settings), sorted(providers, key=lambda item: str(item[0])), secrets]
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return Held(
        generation=generation,
        digest=hmac.new(key.open().encode(), text, hashlib.sha256).hexdigest(),
        at=at,
        secrets=tuple(bundle.secrets),
        providers=tuple(item.name for item in bundle.providers),
        settings=pointers(bundle.settings),
    )
