"""Who gets a campaign's offer, when its budget allows it, and what came of it.

Spending follows time: at every moment no more has been spent than the budget's share that has passed (the allowance
of Agarwal, Ghosh, Wei, You, "Budget pacing for targeted online advertisements at LinkedIn", KDD 2014, with time in
place of a forecast of traffic). Among those who may get an offer it goes to whom it adds most: the bar that a person's
uplift has to pass rises while there are more of them than the budget lasts for, and falls otherwise.
"""

import math
from hashlib import blake2b

import msgspec

from schema.campaign import Campaign, Offer, OfferTry

VERSION = 1
"""The first byte of a packed budget, and of what is kept of a person."""
DAY_MS = 86_400_000
LEARNED = 200
"""People with the offer, and as many without, before uplift decides; until then chance does."""
_STEP = 0.02
_SLACK = 0.02
"""How far spending may run ahead of time, as a share of the budget."""


class Budget(msgspec.Struct, array_like=True):
    """What one campaign has spent, how many offers it made, the newest event time that it has seen, and its bar: the
    share of people, by uplift, who are passed over."""

    spent: float = 0.0
    offers: int = 0
    now_ms: int = -1
    bar: float = 0.5
    # The newest scores, of which the bar is a quantile.
    scores: list[float] = []


class Member(msgspec.Struct, array_like=True):
    """What one campaign knows of one person: when they got offers; and of the try that waits for its outcome, when it
    was, whether they got the offer, their features, and whether the outcome came."""

    offered_ms: list[int] = []
    tried_ms: int = -1
    treated: bool = False
    features: dict[str, float] = {}
    reached: bool = False


_encoder = msgspec.msgpack.Encoder()
_budget, _member = msgspec.msgpack.Decoder(Budget), msgspec.msgpack.Decoder(Member)
_SCORES = 256


def pack(state: Budget | Member) -> bytes:
    """The state as a version byte and MessagePack."""
    return bytes((VERSION,)) + _encoder.encode(state)


def unpack_budget(packed: bytes) -> Budget:
    """The inverse of `pack`. Raises ValueError on a version that this code does not know."""
    return _budget.decode(_checked(packed))


def unpack_member(packed: bytes) -> Member:
    """The inverse of `pack`. Raises ValueError on a version that this code does not know."""
    return _member.decode(_checked(packed))


def _checked(packed: bytes) -> memoryview:
    if packed[0] != VERSION:
        raise ValueError(f"campaign state has version {packed[0]}, this code reads {VERSION}")
    return memoryview(packed)[1:]


def eligible(campaign: Campaign, member: Member, segment: str, time_ms: int, price_sensitive: bool = False) -> bool:
    """Whether the person may get an offer of the campaign now, as far as they themselves are concerned."""
    if not campaign.begin_ms <= time_ms < campaign.end_ms:
        return False
    if campaign.segments and segment not in campaign.segments:
        return False
    if campaign.price_sensitive not in (None, price_sensitive):
        return False
    # One try at a time: of one whose outcome is still to come nothing is known.
    pause_ms = max(campaign.every_days, campaign.within_days) * DAY_MS
    waits = member.tried_ms >= 0 and time_ms < member.tried_ms + pause_ms
    return not waits and len(member.offered_ms) < campaign.per_person


def affordable(campaign: Campaign, budget: Budget, time_ms: int) -> bool:
    """Whether one more offer keeps within the budget, and within the share of it that time has released."""
    passed = (time_ms - campaign.begin_ms) / (campaign.end_ms - campaign.begin_ms)
    released = campaign.budget * min(1.0, passed + _SLACK)
    return budget.spent + campaign.cost <= min(campaign.budget, released) * (1 + 1e-12)


def decide(
    campaign: Campaign, budget: Budget, member: Member, user_id: str, uplift: float | None, time_ms: int
) -> tuple[OfferTry | None, Offer | None]:
    """Whether an eligible person gets an offer: None where there was no money for one, else the try, whose outcome is
    waited for, in place; and the offer, if they do. Who is held out never gets one; else chance decides, with a
    propensity above 0 and below 1, so that outcomes can be learned from."""
    budget.now_ms = max(budget.now_ms, time_ms)
    affords = affordable(campaign, budget, time_ms)
    # Time releases money whether or not anybody is there to take it: the bar makes up for it.
    budget.bar = min(max(budget.bar + (_STEP if not affords else -_STEP / 4), 0.0), 0.98)
    if not affords:
        return None, None
    tried = OfferTry(user_id, campaign.campaign_id, time_ms, False, False, 0.0, uplift)
    if place(campaign.campaign_id, "holdout", user_id) < campaign.holdout:
        member.tried_ms, member.treated, tried.held_out = time_ms, False, True
        return tried, None
    if uplift is None:
        propensity = 0.5
    else:
        budget.scores = [*budget.scores, uplift][-_SCORES:]
        at = sorted(budget.scores)[min(math.floor(budget.bar * len(budget.scores)), len(budget.scores) - 1)]
        # Below the bar so few that they are the share `explore` of offers, and not of people.
        by_chance = campaign.explore * min(1.0, (1 - budget.bar) / max(budget.bar, 0.01))
        propensity = 1 - campaign.explore if uplift >= at else by_chance
    member.tried_ms, tried.propensity = time_ms, propensity
    member.treated = tried.treated = place(campaign.campaign_id, f"try {time_ms}", user_id) < propensity
    if not member.treated:
        return tried, None
    budget.spent += campaign.cost
    budget.offers += 1
    member.offered_ms.append(time_ms)
    number = budget.offers
    return tried, Offer(user_id, campaign.campaign_id, number, time_ms, propensity, uplift, dict(campaign.offer))


def place(*names: str) -> float:
    """From 0 to below 1, by six bytes of BLAKE2b of the names: chance that comes out the same again."""
    return int.from_bytes(blake2b("\0".join(names).encode(), digest_size=6).digest(), "big") / 2.0**48
