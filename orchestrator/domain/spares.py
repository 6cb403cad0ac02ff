"""Kinds of runtimes: the image and the size of one, and how many spares of a kind wait in the warm pool. Pure."""

import re
from dataclasses import dataclass

#: Multiples of what a runtime of size 1 may use of memory, processors and processes.
SIZES = (1, 2, 4, 8)
_FORM = re.compile(r"(?P<image>[^*=,\s]*)(?:\*(?P<size>\d{1,2}))?=(?P<minimum>\d{1,4})(?::(?P<maximum>\d{1,5}))?")
_MOST = 1000


@dataclass(frozen=True)
class Stock:
    """`minimum` ready spares of one kind; never more than `maximum` that are nobody's, those included that are being
    made or removed. `image` None is the one of requests that name none."""

    image: str | None
    size: int
    minimum: int
    maximum: int

    @property
    def kind(self) -> tuple[str | None, int]:
        return self.image, self.size


def stock_of(text: str) -> Stock:
    """`image*size=minimum:maximum`; no image for the default one, size 1 if it is left out, and twice the minimum for
    a maximum that is. Raises `ValueError`, whose text says what is wrong."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text.strip()[:100]!r} is not of the form image*size=minimum:maximum, as in *2=1:3")
    size, minimum = int(found["size"] or 1), int(found["minimum"])
    maximum = int(found["maximum"] or 2 * minimum)
    if size not in SIZES:
        raise ValueError(f"there is no size {size}: a size is {', '.join(map(str, SIZES))}")
    if not minimum <= _MOST or maximum < minimum:
        raise ValueError(f"of {text.strip()[:100]!r} the maximum is below the minimum, or that above {_MOST}")
    return Stock(found["image"] or None, size, minimum, maximum)


def stocks_of(text: str) -> tuple[Stock, ...]:
    """A comma list of them. Raises `ValueError`, also for a kind that is there twice."""
    stocks = tuple(stock_of(part) for part in text.split(",") if part.strip())
    if len({stock.kind for stock in stocks}) < len(stocks):
        raise ValueError("one kind is there twice")
    return stocks
