"""From the list that is held to the one that is asked for."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from schema.category_items import decode_category_items
from schema.item import Item
from schema.recommendation import DEFAULT_USER, Recommendation, ScoredItem, default_user
from serving.messages import ListedItem, UserList
from serving.view import View

_OLD_MS = 7 * 86_400_000
"""A context's list that is a week older than that of all people is of a context in which nothing happens any more."""

_decoder = msgspec.json.Decoder(Recommendation)


class Wanted(msgspec.Struct, frozen=True):
    """What is asked of a list: at most k items, of the category (at any depth), within the prices, in stock, none of
    the excluded; filled up, where so said, from the list for people with no history. What the `context` says by name
    chooses among those lists."""

    k: int = 20
    category: str | None = None
    exclude: frozenset[str] = frozenset()
    min_price: float | None = None
    max_price: float | None = None
    details: bool = False
    fill: bool = False
    context: Mapping[str, str] = MappingProxyType({})

    def asks_catalogue(self) -> bool:
        """Whether items must be looked up to tell which are wanted."""
        return self.category is not None or self.min_price is not None or self.max_price is not None


def list_of(view: View, user_id: str, key: str, wanted: Wanted) -> UserList:
    """The list of a user whose lists are kept under `key`, the list for people with no history where there is none, and
    what is popular in the category where one is asked for."""
    held = own = _held(view, key)
    if held is None:
        held = _default(view, wanted)
        if held is None:
            return UserList(user_id, None, None, None, 0, 0, "default", [])
        held.strategy, held.event_id, held.experiments = "default", None, None
    list_id, popular = held.list_id or None, _popular(view, wanted.category)
    if own is None and popular:
        # No list of the job's, so that nothing can follow from one.
        list_id, held.items = None, _without_repetition(popular + held.items)
    items = _filtered(view, held.items, wanted)
    if wanted.fill and own is not None and len(items) < wanted.k:
        default = _default(view, wanted)
        more = popular + (default.items if default is not None else [])
        items = _filtered(view, _without_repetition(held.items + more), wanted)
    return UserList(
        user_id,
        list_id,
        held.generated_at,
        held.event_id,
        held.model_version,
        held.profile_version,
        held.strategy,
        _detailed(view, items[: wanted.k], wanted.details),
        held.experiments,
    )


def _default(view: View, wanted: Wanted) -> Recommendation | None:
    """The list for people with no history in that context, or for all where there is none that is not out of date."""
    of_all = _held(view, DEFAULT_USER)
    of_some = _held(view, default_user(wanted.context)) if wanted.context else None
    if of_some is None or (of_all is not None and of_all.generated_at - of_some.generated_at > _OLD_MS):
        return of_all
    return of_some


def _popular(view: View, category: str | None) -> list[ScoredItem]:
    raw = None if category is None else view.popular(category)
    found = [] if raw is None else decode_category_items(raw).items
    return [ScoredItem(item.item_id, item.score, "popularity") for item in found]


def _without_repetition(items: list[ScoredItem]) -> list[ScoredItem]:
    """The first of each."""
    first: dict[str, ScoredItem] = {}
    for item in items:
        first.setdefault(item.item_id, item)
    return list(first.values())


def _held(view: View, key: str) -> Recommendation | None:
    raw = view.recommendations(key)
    return None if raw is None else _decoder.decode(raw)


def _filtered(view: View, items: Iterable[ScoredItem], wanted: Wanted) -> list[ScoredItem]:
    gone = view.gone
    found = [item for item in items if item.item_id not in gone and item.item_id not in wanted.exclude]
    if not wanted.asks_catalogue():
        return found
    described = view.of_catalogue([item.item_id for item in found])
    return [item for item, details in zip(found, described, strict=True) if details and _fits(details, wanted)]


def _fits(item: Item, wanted: Wanted) -> bool:
    if wanted.category is not None and wanted.category not in item.category:
        return False
    if wanted.min_price is None and wanted.max_price is None:
        return True
    if item.price is None:
        return False
    above = wanted.min_price is None or item.price >= wanted.min_price
    return above and (wanted.max_price is None or item.price <= wanted.max_price)


def _detailed(view: View, items: list[ScoredItem], details: bool) -> list[ListedItem]:
    listed = [
        ListedItem(item.item_id, item.score, item.source, item.because, item.propensity, item.rules, item.shared)
        for item in items
    ]
    if details:
        for item, found in zip(listed, view.of_catalogue([item.item_id for item in items]), strict=True):
            if found is not None:
                item.title, item.brand, item.category = found.title, found.brand, found.category or None
                item.price, item.currency, item.image_url = found.price, found.currency, found.image_url
    return listed
