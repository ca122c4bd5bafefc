import pytest

from schema.event import EVENT_TYPES
from schema.vocabulary import VOCABULARIES, vocabulary

pytestmark = pytest.mark.unit


def test_every_table_leads_to_our_types() -> None:
    assert {ours for table in VOCABULARIES.values() for ours in table.values()} <= set(EVENT_TYPES)


def test_tables_merge_and_the_extra_wins() -> None:
    merged = vocabulary(["taobao", "segment"], {"pv": "impression", "like": "favorite"})
    assert merged["buy"] == "purchase"
    assert merged["Order Completed"] == "purchase"
    assert (merged["pv"], merged["like"]) == ("impression", "favorite")


def test_what_is_unknown_is_named() -> None:
    with pytest.raises(ValueError, match="'myspace'"):
        vocabulary(["myspace"], {})
    with pytest.raises(ValueError, match="'teleport' for 'x'"):
        vocabulary([], {"x": "teleport"})
