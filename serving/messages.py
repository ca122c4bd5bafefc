"""What the HTTP API answers with."""

from typing import Annotated

import msgspec
from msgspec import Meta


class ListedItem(msgspec.Struct, omit_defaults=True):
    """An item of a list. Details are there where they were asked for and the catalogue has them."""

    item_id: str
    score: Annotated[float, Meta(description="Comparable within one list only.")]
    source: Annotated[str, Meta(description="The model that proposed it, `history`, or `new`: by chance.")]
    because: Annotated[str | None, Meta(description="The item of the person's history that led to it.")] = None
    propensity: Annotated[float | None, Meta(description="With which chance it was drawn, where it was.")] = None
    rules: Annotated[list[str] | None, Meta(description="The shop's rules that put or kept it there.")] = None
    shared: Annotated[
        str | None, Meta(description="What it has in common with that item: a category, brand, word, or the price.")
    ] = None
    title: str | None = None
    category: list[str] | None = None
    brand: str | None = None
    price: float | None = None
    currency: str | None = None
    image_url: str | None = None


class UserList(msgspec.Struct):
    """What a person should see, best first."""

    user_id: str
    list_id: Annotated[
        str | None,
        Meta(description="To be sent back as `list_id` of events that follow from it. None where there is none."),
    ]
    generated_at: Annotated[int | None, Meta(description="Epoch milliseconds.")]
    event_id: Annotated[str | None, Meta(description="The newest event that the list reflects.")]
    model_version: int
    profile_version: Annotated[int, Meta(description="How many events of the person the list reflects.")]
    strategy: Annotated[
        str,
        Meta(
            description="`personal`; `session`, without consent; `popular`, where nothing of what they did says "
            "what they want; or `default`: the list for people with no history."
        ),
    ]
    items: list[ListedItem]
    experiments: Annotated[
        dict[str, str] | None, Meta(description="The person's arm of each experiment that they are in.")
    ] = None


class SimilarItem(msgspec.Struct):
    """An item that goes with another."""

    item_id: str
    score: Annotated[float, Meta(description="Comparable within one answer only.")]


class SimilarItems(msgspec.Struct):
    """What people have together with an item, best first."""

    item_id: str
    generated_at: Annotated[int | None, Meta(description="Epoch milliseconds. None where nothing is known yet.")]
    items: list[SimilarItem]


class CatalogueItem(msgspec.Struct):
    """An item as the shop describes it."""

    item_id: str
    title: str | None
    category: list[str]
    brand: str | None
    price: float | None
    currency: str | None
    available: bool
    image_url: str | None


class CatalogueItems(msgspec.Struct):
    """Items of the catalogue."""

    items: list[CatalogueItem]


class Categories(msgspec.Struct):
    """The broadest categories of the catalogue."""

    categories: list[str]


class State(msgspec.Struct):
    """How the process is: `behind` counts the messages that it has yet to read of those that were there when it
    started."""

    status: str
    users: int
    items: int
    behind: int | None


class Problem(msgspec.Struct):
    """Why a request was refused; `extra` names the fields at fault."""

    status_code: int
    detail: str
    extra: dict[str, str] | list[dict[str, str]] | None = None


class Placed(msgspec.Struct):
    """The place on the topic of a message that the broker has confirmed."""

    partition: int
    offset: int
