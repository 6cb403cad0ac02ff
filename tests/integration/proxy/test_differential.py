"""The front against the strict reference, on what a seed makes of requests. At length: `scripts/soak proxy`."""

import pytest
from support.differential import differ

pytestmark = pytest.mark.anyio


async def test_what_arrives_is_what_the_bytes_strictly_say():
    counts = await differ(2000, seed=7)
    assert counts["cases"] == 2000
    assert counts["tampered cases served whole"] > 100
    assert counts["tampered cases refused and closed"] > 1000
