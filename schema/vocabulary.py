"""Event types of other trackers, mapped to ours."""

from collections.abc import Iterable, Mapping

from schema.event import EVENT_TYPES

GA4 = {
    "view_item": "view",
    "select_item": "view",
    "view_item_list": "impression",
    "add_to_cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "add_to_wishlist": "favorite",
    "purchase": "purchase",
    "search": "search",
    "view_search_results": "search",
}
SEGMENT = {
    "Product Viewed": "view",
    "Product Clicked": "view",
    "Product List Viewed": "impression",
    "Product Added": "add_to_cart",
    "Wishlist Product Added to Cart": "add_to_cart",
    "Product Removed": "remove_from_cart",
    "Product Added to Wishlist": "favorite",
    "Order Completed": "purchase",
    "Product Reviewed": "rating",
    "Products Searched": "search",
}
TAOBAO = {"pv": "view", "cart": "add_to_cart", "fav": "favorite", "buy": "purchase"}
RETAILROCKET = {"view": "view", "addtocart": "add_to_cart", "transaction": "purchase"}

VOCABULARIES = {"ga4": GA4, "segment": SEGMENT, "taobao": TAOBAO, "retailrocket": RETAILROCKET}


def vocabulary(names: Iterable[str], extra: Mapping[str, str]) -> dict[str, str]:
    """Foreign event type to ours, from the named tables and `extra`; where they disagree the later wins, `extra` last.

    Raises ValueError naming a table or an event type that does not exist.
    """
    merged: dict[str, str] = {}
    for name in names:
        if name not in VOCABULARIES:
            raise ValueError(f"unknown vocabulary {name!r}; there are {', '.join(VOCABULARIES)}")
        merged |= VOCABULARIES[name]
    for foreign, ours in extra.items():
        if ours not in EVENT_TYPES:
            raise ValueError(f"unknown event type {ours!r} for {foreign!r}; there are {', '.join(EVENT_TYPES)}")
    return merged | dict(extra)
