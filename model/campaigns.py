"""Who gets a campaign's offer, when its budget allows it, and what came of it.

Spending follows time: at every moment no more has been spent than the budget's share that has passed (the allowance
of Agarwal, Ghosh, Wei, You, "Budget pacing for targeted online advertisements at LinkedIn", KDD 2014, with time in
place of a forecast of traffic). Among those who may get an offer it goes to whom it adds most: the bar that a person's
uplift has to pass rises while there are more of them than the budget lasts for, and falls otherwise.
"""

import math
from collections.abc import Mapping
from hashlib import blake2b
from itertools import accumulate

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
    was, whether they got an offer, their features, whether the outcome came, and which offer it was."""

    offered_ms: list[int] = []
    tried_ms: int = -1
    treated: bool = False
    features: dict[str, float] = {}
    reached: bool = False
    name: str = ""


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
    """Whether one more offer, the dearest of several, keeps within the budget, and within the share of it that time has
    released: would it do for the cheapest alone, the others' turn would never come."""
    passed = (time_ms - campaign.begin_ms) / (campaign.end_ms - campaign.begin_ms)
    released = campaign.budget * min(1.0, passed + _SLACK)
    return budget.spent + campaign.dearest <= min(campaign.budget, released) * (1 + 1e-12)


def decide(
    campaign: Campaign,
    budget: Budget,
    member: Member,
    user_id: str,
    uplifts: Mapping[str, float | None],
    time_ms: int,
) -> tuple[OfferTry | None, Offer | None]:
    """Whether an eligible person gets an offer, and which: None where there was no money for one, else the try, whose
    outcome is waited for, in place; and the offer, if they do. `uplifts` is how much each of the campaign's offers
    adds, None where too little is known of it: then it is one of those. Else it is mostly the one that adds most for
    its cost. Who is held out never gets one; for others chance decides, with a propensity above 0 and below 1, so that
    outcomes can be learned from."""
    budget.now_ms = max(budget.now_ms, time_ms)
    affords = affordable(campaign, budget, time_ms)
    # Time releases money whether or not anybody is there to take it: the bar makes up for it.
    budget.bar = min(max(budget.bar + (_STEP if not affords else -_STEP / 4), 0.0), 0.98)
    if not affords:
        return None, None
    offers = campaign.priced
    # For what it costs, beside the dearest: of one offer alone its uplift itself.
    values = {
        name: uplift * campaign.dearest / offers[name].cost for name, uplift in uplifts.items() if uplift is not None
    }
    best = max(values, key=values.__getitem__) if len(values) == len(offers) else None
    tried = OfferTry(user_id, campaign.campaign_id, time_ms, False, False, 0.0, None if best is None else uplifts[best])
    if place(campaign.campaign_id, "holdout", user_id) < campaign.holdout:
        member.tried_ms, member.treated, tried.held_out = time_ms, False, True
        return tried, None
    if best is None:
        unknown = [name for name in offers if name not in values]
        chances = {name: 0.5 / len(unknown) for name in unknown}
    else:
        budget.scores = [*budget.scores, values[best]][-_SCORES:]
        at = sorted(budget.scores)[min(math.floor(budget.bar * len(budget.scores)), len(budget.scores) - 1)]
        # Below the bar so few that they are the share `explore` of offers, and not of people.
        by_chance = campaign.explore * min(1.0, (1 - budget.bar) / max(budget.bar, 0.01))
        any_of_them = 1 - campaign.explore if values[best] >= at else by_chance
        others = any_of_them * campaign.explore / max(len(offers) - 1, 1)
        chances = dict.fromkeys(offers, others)
        chances[best] = any_of_them - others * (len(offers) - 1)
    member.tried_ms, tried.propensity = time_ms, sum(chances.values())
    drawn = place(campaign.campaign_id, f"try {time_ms}", user_id)
    ends = zip(chances, accumulate(chances.values()), strict=True)
    name = next((name for name, end in ends if drawn < end), None)
    member.treated = tried.treated = name is not None
    if campaign.offers:
        tried.name, tried.propensities = name, chances
    if name is None:
        return tried, None
    tried.uplift, member.name = uplifts[name], name
    budget.spent += offers[name].cost
    budget.offers += 1
    member.offered_ms.append(time_ms)
    offer = Offer(user_id, campaign.campaign_id, budget.offers, time_ms, chances[name], uplifts[name])
    offer.offer, offer.spent, offer.name = dict(offers[name].offer), budget.spent, name or None
    return tried, offer


def place(*names: str) -> float:
    """From 0 to below 1, by six bytes of BLAKE2b of the names: chance that comes out the same again."""
    return int.from_bytes(blake2b("\0".join(names).encode(), digest_size=6).digest(), "big") / 2.0**48
