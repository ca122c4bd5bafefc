"""What one person's actions come to: their segment, and the cart that they leave behind. All by event time.

Segments follow the recency and frequency of Bult, Wansbeek, "Optimal selection for direct mail", Marketing Science 14,
1995: how long ago the last action was, against how far apart this person's days of activity lie.
"""

from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from schema.behaviour import AbandonedCart, PersonSegment, Segment

VERSION = 1
"""The first byte of a packed person."""
DAY_MS = 86_400_000


@dataclass(frozen=True)
class BehaviourOptions:
    """Who is `new` for so many days; `loyal` with so many days of activity and purchases in the last `recent_days`;
    `lapsing` after `lapse_factor` times the usual gap between days of activity, and `lapse_days` at least. A cart is
    abandoned after `cart_ms` without a change; one that is heard of after that is told `gather_ms` later. Who buys at
    no more than `cheap` of the mean price that they look at, over `purchases` purchases at least, is sensitive to
    prices."""

    new_days: int = 7
    recent_days: int = 28
    loyal_days: int = 4
    loyal_purchases: int = 1
    lapse_factor: float = 3.0
    lapse_days: int = 7
    cart_ms: int = 3_600_000
    cart_items: int = 50
    gather_ms: int = 60_000
    cheap: float = 0.8
    purchases: int = 3


class Action(NamedTuple):
    """One event of a person, about an item of a category at a price, where these are known."""

    user_id: str
    event_type: str
    item_id: str | None
    category: str | None
    price: float | None
    time_ms: int


class Person(msgspec.Struct, array_like=True):
    """The state of one person. `days` are those of activity, `bought` those of purchases, as days since 1970, oldest
    first; `cart` holds each item's time, and `out` when items were last bought or taken out. `look_ms` is when they are
    looked at again, -1 for never."""

    first_ms: int = -1
    last_ms: int = -1
    days: list[int] = []
    bought: list[int] = []
    viewed_sum: float = 0.0
    viewed: int = 0
    paid_sum: float = 0.0
    paid: int = 0
    cart: dict[str, int] = {}
    cart_ms: int = -1
    segment: str = ""
    price_sensitive: bool = False
    out: dict[str, int] = {}
    look_ms: int = -1


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Person)


def pack_person(person: Person) -> bytes:
    """The person as a version byte and MessagePack."""
    return bytes((VERSION,)) + _encoder.encode(person)


def unpack_person(packed: bytes) -> Person:
    """The inverse of `pack_person`. Raises ValueError on a version that this code does not know."""
    if packed[0] != VERSION:
        raise ValueError(f"person state has version {packed[0]}, this code reads {VERSION}")
    return _decoder.decode(memoryview(packed)[1:])


def act(person: Person, action: Action, options: BehaviourOptions) -> None:
    """Take one action, in place; actions may come in any order."""
    person.first_ms = action.time_ms if person.first_ms < 0 else min(person.first_ms, action.time_ms)
    person.last_ms = max(person.last_ms, action.time_ms)
    _add_day(person.days, action.time_ms // DAY_MS, options)
    if action.event_type == "purchase":
        _add_day(person.bought, action.time_ms // DAY_MS, options)
    if action.price is not None and action.event_type == "view":
        person.viewed_sum, person.viewed = person.viewed_sum + action.price, person.viewed + 1
    if action.price is not None and action.event_type == "purchase":
        person.paid_sum, person.paid = person.paid_sum + action.price, person.paid + 1
    if action.item_id is None:
        return
    if action.event_type == "add_to_cart":
        # What was bought or taken out after this, though it was heard of before, is not in the cart.
        if person.out.get(action.item_id, -1) > action.time_ms:
            return
        person.cart[action.item_id] = max(action.time_ms, person.cart.pop(action.item_id, -1))
        person.cart_ms = max(person.cart_ms, action.time_ms)
        if len(person.cart) > options.cart_items:
            del person.cart[next(iter(person.cart))]
        return
    # What came into the cart after this, though it was heard of before, stays.
    if action.event_type not in ("purchase", "remove_from_cart"):
        return
    person.out[action.item_id] = max(action.time_ms, person.out.pop(action.item_id, -1))
    if len(person.out) > options.cart_items:
        del person.out[next(iter(person.out))]
    if person.cart.get(action.item_id, action.time_ms + 1) <= action.time_ms:
        del person.cart[action.item_id]
        person.cart_ms = max(person.cart_ms, action.time_ms)


def abandoned(person: Person, user_id: str, now_ms: int, options: BehaviourOptions) -> AbandonedCart | None:
    """The cart that the person has left by `now_ms`, which is empty after that; None where there is none."""
    if not person.cart or now_ms < person.cart_ms + options.cart_ms:
        return None
    left = AbandonedCart(user_id, list(person.cart), max(person.cart.values()))
    person.cart = {}
    return left


def next_look(person: Person, now_ms: int, options: BehaviourOptions) -> int | None:
    """When, by event time after `now_ms`, the passing of time alone may first change something: the cart, or the
    segment. None where it changes nothing."""
    # A cart of which is heard so late that it was left already has a little time to be complete.
    times = [max(person.cart_ms + options.cart_ms, now_ms + options.gather_ms)] if person.cart else []
    if person.segment == "new":
        times.append(person.first_ms + options.new_days * DAY_MS)
    elif person.segment == "loyal":
        times.append((max(now_ms, person.last_ms) // DAY_MS + 1) * DAY_MS)
    if person.segment != "lapsing":
        times.append(person.last_ms + _patience_ms(person, options))
    return min((time for time in times if time > now_ms), default=None)


def segment(person: Person, user_id: str, now_ms: int, options: BehaviourOptions) -> PersonSegment | None:
    """The person's segment at `now_ms`, None where it is what it was."""
    found = _segment(person, now_ms, options)
    enough = person.paid >= options.purchases and person.viewed >= options.purchases
    cheap = enough and person.paid_sum / person.paid <= options.cheap * person.viewed_sum / person.viewed
    if (found, cheap) == (person.segment, person.price_sensitive):
        return None
    person.segment, person.price_sensitive = found, cheap
    return PersonSegment(user_id, found, cheap, now_ms)


def _segment(person: Person, now_ms: int, options: BehaviourOptions) -> Segment:
    if now_ms - person.last_ms >= _patience_ms(person, options):
        return "lapsing"
    since = now_ms // DAY_MS - options.recent_days
    active = sum(day > since for day in person.days)
    if active >= options.loyal_days and sum(day > since for day in person.bought) >= options.loyal_purchases:
        return "loyal"
    return "new" if now_ms - person.first_ms < options.new_days * DAY_MS else "regular"


def _patience_ms(person: Person, options: BehaviourOptions) -> int:
    gaps = len(person.days) - 1
    usual = (person.days[-1] - person.days[0]) / gaps if gaps else 0.0
    return round(max(options.lapse_factor * usual, options.lapse_days) * DAY_MS)


def _add_day(days: list[int], day: int, options: BehaviourOptions) -> None:
    if day not in days:
        days.append(day)
        days.sort()
        # Twice what is looked at, so that the usual gap is one of some weeks.
        while days[0] <= days[-1] - 2 * options.recent_days:
            del days[0]
