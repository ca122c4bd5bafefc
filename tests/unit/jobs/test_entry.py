"""What all jobs say to Kafka."""

import re
from types import SimpleNamespace
from typing import cast

import pytest
from pyflink.table import StreamTableEnvironment

from config.kafka import Kafka
from jobs import marketing
from jobs.entry import sink
from jobs.settings import Settings

pytestmark = pytest.mark.unit


def test_two_shops_on_one_broker_share_no_transactions() -> None:
    ids = [
        re.findall("'sink.transactional-id-prefix'='([^']+)'", sink(Kafka(group_id=group), table))
        for group in ("headrace", "headrace-eu", "shop")
        for table in ("lists", "similar", "dead_letters")
    ]
    found = [prefix for (prefix,) in ids]
    assert found[0] == "headrace-lists"
    assert len(set(found)) == len(found)


def test_an_offer_is_made_exactly_once_whatever_is_configured() -> None:
    said: list[str] = []
    tables = SimpleNamespace(execute_sql=said.append)
    marketing.create_tables(cast(StreamTableEnvironment, tables), Settings())
    (offers,) = (text for text in said if text.startswith("create table offers"))
    (dead_letters,) = (text for text in said if text.startswith("create table dead_letters"))
    assert "'sink.delivery-guarantee'='exactly-once'" in offers
    assert "'sink.delivery-guarantee'='at-least-once'" in dead_letters
