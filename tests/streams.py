"""Small streams of events, as the models get them."""

from model.profile import Profile, ProfileOptions, apply_event, snapshot
from model.snapshot import Snapshot
from schema.event import Event


def snapshots(pairs: list[tuple[int, int]]) -> list[Snapshot]:
    """One snapshot for each (user, item), a second apart; people are of three countries."""
    options, profiles = ProfileOptions(), dict[int, Profile]()
    made = []
    for number, (user, item) in enumerate(pairs):
        event = Event(str(number), f"u{user}", "view", 1_600_000_000_000 + 1000 * number, f"i{item}")
        event.properties = {"country": f"c{user % 3}"}
        profile = profiles.setdefault(user, Profile())
        outcome = apply_event(profile, event, options)
        made.append(snapshot(profile, event, outcome, event.timestamp, options))
    return made
