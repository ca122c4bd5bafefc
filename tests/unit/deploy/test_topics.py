"""Topics under the names that a configuration gives them."""

from pathlib import Path

import pytest

from config.kafka import Kafka, KafkaSettings
from config.loading import load
from deploy.local.topics import default_topics, topics_of

pytestmark = pytest.mark.unit


def test_by_default_they_have_their_own_names() -> None:
    assert topics_of(Kafka()) == default_topics()


def test_each_keeps_its_kind_under_another_name_whatever_else_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('[kafka]\nevents = "shop-events"\nreview_queue = "shop-review"\n[lists]\nk = -1\n')
    topics = topics_of(load(KafkaSettings, file).kafka)
    assert len(topics) == len(default_topics())
    assert {"events", "review-queue"}.isdisjoint(topics)
    assert topics["shop-review"].compacted
    assert not topics["shop-events"].compacted
