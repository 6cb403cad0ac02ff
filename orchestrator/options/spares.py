"""Runtimes that are started before anybody wants them."""

import math
from dataclasses import replace
from typing import Self

from pydantic import Field, field_validator, model_validator

from orchestrator.domain.spares import Stock, stocks_of
from orchestrator.options.containers import ContainerSettings


class SpareSettings(ContainerSettings):
    """Runtimes that are started before anybody wants them."""

    warm_pool: int = Field(default=0, ge=0, le=1000)
    """Spares: runtimes that are started before anybody wants them, dormant, so that a conversation without a workspace
    starts in a fraction of the time. Of all replicas together; they come on top of `max_runtimes`. 0, which also
    removes those that are there: each costs the memory of an idle runtime. With Docker on the shared bridge only."""
    warm_pool_max: int = Field(default=0, ge=0, le=10_000)
    """The most spares that may exist, those included that are being made or removed; 0 for twice `warm_pool`."""
    warm_pools: str = ""
    """Spares of further kinds: comma list of image*size=minimum:maximum, as in `*2=1:3,registry/tools:1=2`. Without an
    image they are of `runtime_image`. Each has to be one that a request may ask for."""

    @field_validator("warm_pools")
    @classmethod
    def _stocks(cls, text: str) -> str:
        stocks_of(text)
        return text

    @model_validator(mode="after")
    def _spares(self) -> Self:
        for stock in self.stocks:
            if stock.image is not None and (self.catalogue is None or stock.image not in self.catalogue.names):
                raise ValueError(
                    f"NESTOR_WARM_POOLS: no request may ask for image {stock.image}: see NESTOR_ALLOWED_IMAGES"
                )
            if stock.size not in self.sizes:
                raise ValueError(
                    f"NESTOR_WARM_POOLS: no request may ask for size {stock.size}: see NESTOR_ALLOWED_SIZES"
                )
        return self

    @property
    def stocks(self) -> tuple[Stock, ...]:
        """How many spares of each kind. Raises `ValueError`."""
        most = self.warm_pool_max or 2 * self.warm_pool
        further = stocks_of(self.warm_pools)
        further = tuple(replace(one, image=None) if one.image == self.runtime_image else one for one in further)
        stocks = (Stock(None, 1, self.warm_pool, most), *self._canary_stock, *further)
        if len({stock.kind for stock in stocks}) < len(stocks):
            raise ValueError(
                "NESTOR_WARM_POOLS: one kind is there twice; NESTOR_WARM_POOL is the default image of size 1"
            )
        return stocks

    @property
    def _canary_stock(self) -> tuple[Stock, ...]:
        """Spares of the canary by its share, so that it is no slower than what it is compared with."""
        minimum = math.ceil(self.warm_pool * self.canary_percent / 100) if self.canary_image else 0
        return (Stock(self.canary_image, 1, minimum, 2 * minimum),) if minimum else ()
