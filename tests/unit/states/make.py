"""Writes the states that the code of a checkout packs, for the migration tests.

Run in a checkout of the version whose states are wanted: `PYTHONPATH=. python make.py FOLDER`. It asks of that code
only what every version has had.
"""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec

from model.blend import BlendOptions, Recommender
from model.cooccurrence import CooccurrenceOptions
from model.delta import CatalogueChange
from model.matrix_factorization import MatrixFactorizationOptions
from model.profile import Profile, ProfileOptions, apply_event, pack_profile, snapshot
from model.snapshot import pack_snapshot
from schema.event import EventParser

START = 1_600_000_000_000
USERS, ITEMS, EVENTS = 6, 12, 60
LARGE = {"dimensions": 4, "reservoir": 8, "step": 16, "neighbours": 16, "slots": 16}


def options() -> Any:
    """The models, small, with the options that the version knows."""
    known: dict[str, Any] = {
        "cooccurrence": CooccurrenceOptions(**_known(CooccurrenceOptions)),
        "factorization": MatrixFactorizationOptions(**_known(MatrixFactorizationOptions)),
    }
    if "linear" in {field.name for field in fields(BlendOptions)}:
        from model.linear_item_model import LinearItemModelOptions

        known["linear"] = LinearItemModelOptions(**_known(LinearItemModelOptions))
    return BlendOptions(**known)


def _known(kind: Any) -> dict[str, int]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in LARGE.items() if name in names}


def event(number: int) -> bytes:
    """The n-th event: user n mod 6 views item n * n mod 12."""
    made = {"event_id": f"e{number}", "user_id": f"u{number % USERS}", "event_type": "view"}
    return msgspec.json.encode(made | {"timestamp": START + number * 1000, "item_id": f"i{number * number % ITEMS}"})


def main(folder: Path) -> None:
    """Write one file for each kind of state."""
    parser, bounds, profiles, taken = EventParser(), ProfileOptions(), {}, []
    for number in range(EVENTS):
        parsed = parser.parse(event(number), START + 10**9)
        profile = profiles.setdefault(parsed.user_id, Profile())
        outcome = apply_event(profile, parsed, bounds)
        taken.append(snapshot(profile, parsed, outcome, START, bounds))
    recommender = Recommender(options())
    change = [CatalogueChange("i0", False)]
    recommender.learn(taken, change)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profile").write_bytes(pack_profile(profiles["u1"]))
    (folder / "recommender").write_bytes(recommender.pack())
    # The learner's log and the scorer's waiting batches.
    (folder / "log").write_bytes(msgspec.msgpack.encode(([pack_snapshot(s) for s in taken[-3:]], change)))
    try:
        from model.learned_blend import LearnedBlend, LearnedBlendOptions
    except ImportError:
        return
    blend = LearnedBlend(LearnedBlendOptions())
    for one in taken:
        recommender.feedback(one, blend)
        recommender.recommend([one], 5, blend)
    (folder / "blend").write_bytes(blend.pack())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
