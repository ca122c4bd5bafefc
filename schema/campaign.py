"""Campaigns, and the offers that people get or do not: the compacted topic `campaigns`, and the topics `offers` and
`offer-tries`."""

import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Self

import msgspec
from pydantic import AwareDatetime, BaseModel, Field, model_validator

from schema.behaviour import Segment
from schema.event import EventType
from schema.steering import STRICT, parse_steering
from schema.wire import decode

Name = Annotated[str, Field(min_length=1, max_length=64)]


class Priced(BaseModel):
    """One of a campaign's offers: what is in it, and what it `cost`s to make it once."""

    model_config = STRICT

    cost: Annotated[float, Field(gt=0, strict=False)]
    offer: dict[str, str] = {}


class Campaign(BaseModel):
    """Who gets an offer: a coupon, an ad, a mail. From `from` to `until` it spends `budget` evenly, `cost` for each
    offer, and never more. Or it has several `offers`, by name, each with a cost of its own, of which a person gets the
    one that adds most for what it costs. A person gets an offer at most every `every_days`, not before the outcome of
    the last is known, and `per_person` in all; only those of the `segments`, as `jobs/behaviour.py` says them, where
    some are named, and where it is said only those who are `price_sensitive`, or who are not. The share `holdout` of
    people never gets one, so that what the campaign adds can be measured. For others it is decided by how much the
    offer adds to the chance that an event `outcome` follows within `within_days`; a share `explore` of offers is made
    by chance.
    """

    model_config = STRICT

    campaign_id: Annotated[str, Field(min_length=1, max_length=256)]
    starts: Annotated[AwareDatetime, Field(alias="from", strict=False)]
    ends: Annotated[AwareDatetime, Field(alias="until", strict=False)]
    budget: Annotated[float, Field(gt=0, strict=False)]
    cost: Annotated[float, Field(gt=0, strict=False)] | None = None
    offer: dict[str, str] = {}
    offers: Annotated[dict[Name, Priced], Field(max_length=8)] = {}
    segments: list[Segment] = []
    price_sensitive: bool | None = None
    every_days: Annotated[float, Field(gt=0, le=3650, strict=False)] = 7.0
    per_person: Annotated[int, Field(ge=1)] = 3
    holdout: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.1
    explore: Annotated[float, Field(gt=0, lt=1, strict=False)] = 0.1
    outcome: EventType = "purchase"
    within_days: Annotated[float, Field(gt=0, le=3650, strict=False)] = 7.0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults = []
        if self.starts >= self.ends:
            faults.append("from must come before until")
        misfits = _misfits(dict(self))
        if not misfits and self.dearest > self.budget:
            faults.append("cost must not exceed budget")
        faults += misfits
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @cached_property
    def priced(self) -> dict[str, Priced]:
        """Its offers by their names, "" of the one that has none."""
        return self.offers or {"": Priced.model_validate({"cost": self.cost, "offer": self.offer})}

    @cached_property
    def dearest(self) -> float:
        """What the most expensive of its offers costs."""
        return max(one.cost for one in self.priced.values())

    @property
    def begin_ms(self) -> int:
        """`from` in epoch milliseconds."""
        return int(self.starts.timestamp() * 1000)

    @property
    def end_ms(self) -> int:
        """`until` in epoch milliseconds."""
        return int(self.ends.timestamp() * 1000)

    @property
    def over_ms(self) -> int:
        """When the outcome of its last offer is known, in epoch milliseconds."""
        return self.end_ms + int(self.within_days * 86_400_000)


class Offer(msgspec.Struct):
    """Key `user_id`: an offer for a person at `at` (epoch milliseconds), the `number`-th of its campaign, which has
    `spent` so much with it. `propensity` is the chance with which a person like this got it, `uplift` how much it is
    thought to add to the chance of the outcome, None while too little is known. `name` says which it is of several."""

    user_id: str
    campaign_id: str
    number: int
    at: int
    propensity: float
    uplift: float | None
    offer: dict[str, str] = {}
    spent: float = 0.0
    name: str | None = None


class OfferTry(msgspec.Struct):
    """Key `user_id`: that it was decided at `at` (epoch milliseconds) whether a person gets an offer of the campaign,
    while there was money for one. Whether they did (`treated`) was by chance, with this `propensity`, 0 for who is
    `held_out`; where there are several offers, `name` is the one that they got, and `propensities` are those of each,
    which add up to it. What came of tries, weighed by these, says what the campaign adds."""

    user_id: str
    campaign_id: str
    at: int
    treated: bool
    held_out: bool
    propensity: float
    uplift: float | None
    name: str | None = None
    propensities: dict[str, float] = {}


_OFFERS, _TRIES = msgspec.json.Decoder(Offer), msgspec.json.Decoder(OfferTry)


def parse_campaign(key: str | None, raw: bytes | None) -> tuple[str, Campaign | None]:
    """The campaign's id and the campaign, None where it is ended (no value, or JSON null). Raises MessageError with
    every fault."""
    return parse_steering("campaign", Campaign, key, raw, _misfits)


def _misfits(given: Mapping[str, object]) -> list[str]:
    """Which of a campaign's fields do not go together."""
    faults = []
    if (given.get("cost") is None) == (not given.get("offers")):
        faults.append("needs either cost or offers")
    if given.get("offer") and given.get("offers"):
        faults.append("takes no offer beside offers")
    return faults


def encode_campaign(campaign: Campaign) -> bytes:
    """JSON."""
    return campaign.model_dump_json(by_alias=True, exclude_defaults=True).encode()


def decode_offer(raw: bytes) -> Offer:
    """The offer in `raw`; raises MessageError."""
    return decode(_OFFERS, raw, sys.maxsize)


def encode_offer(offer: Offer | OfferTry) -> bytes:
    """JSON."""
    return msgspec.json.encode(offer)


def decode_try(raw: bytes) -> OfferTry:
    """The try in `raw`; raises MessageError."""
    return decode(_TRIES, raw, sys.maxsize)
