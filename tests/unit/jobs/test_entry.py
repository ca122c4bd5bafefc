"""What all jobs say to Kafka."""

import re

import pytest

from config.kafka import Kafka
from jobs.entry import sink

pytestmark = pytest.mark.unit


def test_two_shops_on_one_broker_share_no_transactions() -> None:
    ids = [
        re.findall("'sink.transactional-id-prefix'='([^']+)'", sink(Kafka(group_id=group), table))
        for group in ("headrace", "headrace-eu", "shop")
        for table in ("lists", "similar", "dead_letters")
    ]
    found = [prefix for (prefix,) in ids]
    assert found[0] == "headrace-lists"
    assert not [(one, other) for one in found for other in found if one != other and other.startswith(f"{one}-")]


def test_an_offer_is_made_exactly_once_whatever_is_configured() -> None:
    assert "'sink.delivery-guarantee'='exactly-once'" in sink(Kafka(), "offers", "exactly-once")
    assert "'sink.delivery-guarantee'='at-least-once'" in sink(Kafka(), "offers")
