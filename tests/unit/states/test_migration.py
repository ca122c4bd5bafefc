"""States that earlier versions wrote, one folder a version, each read by this one: nothing lost, and it goes on."""

from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from model.blend import Recommender
from model.delta import CatalogueChange
from model.learned_blend import LearnedBlend, LearnedBlendOptions
from model.profile import pack_profile, unpack_profile
from model.snapshot import Snapshot, unpack_snapshot

pytestmark = pytest.mark.unit
FOLDER = Path(__file__).parent
VERSIONS = sorted(path for path in FOLDER.iterdir() if path.is_dir() and path.name[0].isdigit())
EVENTS, USERS, ITEMS = 60, 6, 12


def made_by() -> Any:
    """The script that made the states, for its options."""
    spec = spec_from_file_location("make", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OPTIONS = made_by().options()


def item(number: int) -> str:
    return f"i{number * number % ITEMS}"


def test_there_are_states_of_several_versions() -> None:
    assert len(VERSIONS) >= 8


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_a_profile_keeps_what_it_knew(version: Path) -> None:
    profile = unpack_profile((version / "profile").read_bytes())
    own = range(1, EVENTS, USERS)
    assert profile.items == [item(n) for n in own]
    assert profile.times == [1_600_000_000_000 + 1000 * n for n in own]
    assert (sum(profile.counters), profile.late, len(profile.event_ids)) == (len(own), 0, len(own))
    assert (profile.segment, profile.price_sensitive) == ("", False)
    assert unpack_profile(pack_profile(profile)) == profile


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_a_recommender_keeps_its_counts_serves_and_learns_on(version: Path) -> None:
    recommender = Recommender.unpack((version / "recommender").read_bytes(), OPTIONS)
    expected = Counter(item(n) for n in range(EVENTS))
    counts = dict(zip(recommender.index.ids, recommender.cooccurrence.counts.tolist(), strict=True))
    assert counts == expected
    # The first version counted batches.
    version_before = recommender.version
    assert version_before in (EVENTS + 1, 1)
    assert recommender.blocked.tolist() == [item_id == "i0" for item_id in recommender.index.ids]

    requests, changes = msgspec.msgpack.decode(
        (version / "log").read_bytes(), type=tuple[list[bytes], list[CatalogueChange]]
    )
    snapshots = [unpack_snapshot(request) for request in requests]
    assert [(s.event_id, s.history[0]) for s in snapshots] == [(f"e{n}", item(n)) for n in range(57, 60)]
    assert changes == [CatalogueChange("i0", False)]
    (ranked,) = recommender.recommend([Snapshot("u", "e", 0, 0, [item(1)], [1.0])], 5)
    assert sorted(ranked.item_ids) == sorted(set(expected) - {"i0"})
    assert np.isfinite(ranked.scores).all()

    recommender.learn(snapshots)
    again = Recommender.unpack(recommender.pack(), OPTIONS)
    assert again.version == version_before + 3
    assert again.cooccurrence.counts.sum() == EVENTS + 3


@pytest.mark.parametrize("version", [v for v in VERSIONS if (v / "blend").exists()], ids=lambda path: path.name)
def test_a_blend_keeps_its_weights_whatever_features_it_knew(version: Path) -> None:
    packed = (version / "blend").read_bytes()
    written = np.frombuffer(msgspec.msgpack.decode(packed[1:])[0], np.float32)
    blend = LearnedBlend.unpack(packed, LearnedBlendOptions())
    # What a version did not know begins at 0, so the sums over all features are what was written.
    assert blend.weights.sum() == pytest.approx(written.sum(), rel=1e-5)
    assert np.count_nonzero(blend.weights) == np.count_nonzero(written)
    assert LearnedBlend.unpack(blend.pack(), LearnedBlendOptions()).weights.tolist() == blend.weights.tolist()
