"""The split that the benchmark of quality measures on."""

from collections import Counter

import pytest

from bench.quality import stratified_split

pytestmark = pytest.mark.unit


def test_of_every_item_the_same_share_is_for_training_and_the_seed_decides_which() -> None:
    items = [f"i{n % 3}" for n in range(30)] + ["once", "twice", "twice"]
    train = stratified_split(items, 0.75, 42)
    taken = Counter(item for item, chosen in zip(items, train, strict=True) if chosen)
    # Halves go to the even number: 0.75 * 10 is 7.5, 0.75 * 2 is 1.5.
    assert taken == {"i0": 8, "i1": 8, "i2": 8, "once": 1, "twice": 2}
    assert stratified_split(items, 0.75, 42) == train
    assert stratified_split(items, 0.75, 1) != train
