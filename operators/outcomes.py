"""Keyed by user: which arms a person has been shown, and what they do after that."""

import time
from collections.abc import Callable, Iterator

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext

from model.outcomes import Change, Outcomes, pack, show, take, unpack_outcomes
from operators.state import kept_for
from schema.errors import MessageError
from schema.event import EventParser
from schema.recommendation import decode_recommendation, is_default

CHANGE = Types.ROW_NAMED(["change"], [Types.PICKLED_BYTE_ARRAY()])
CHANGES = Types.ROW([Types.STRING(), CHANGE])


class OutcomesFunction(KeyedProcessFunction):
    """In: Row(user_id, of a list, payload, appended_at) of lists and events. Out: Row(experiment_id, Row(packed
    `model.outcomes.Change`)). What is malformed is left out, as the main job makes dead letters of it; so are events
    without consent.

    Keyed state `outcomes`: one packed `model.outcomes.Outcomes`, kept for `ttl_days`.
    """

    def __init__(self, parser: Callable[[], EventParser], ttl_days: float) -> None:
        self._make_parser, self._ttl_days = parser, ttl_days

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the state."""
        self._parser = self._make_parser()
        self._state = runtime_context.get_state(kept_for(self._ttl_days, "outcomes"))

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[Row]:
        """Take a list or an event."""
        _, of_list, payload, appended_ms = value
        payload, user_id = None if payload is None else bytes(payload), ctx.get_current_key()
        packed = self._state.value()
        person = Outcomes() if packed is None else unpack_outcomes(packed)
        changes: list[tuple[str, Change]] = []
        try:
            if of_list:
                if payload is None:
                    # Their list was erased; their event may have been heard of before or will be.
                    yield from self._forgotten(person, user_id)
                    return
                listed = decode_recommendation(payload)
                # A list of a session without consent says nothing of what the person is in.
                session = listed.experiments is None and not listed.profile_version
                if is_default(user_id) or session or not (listed.experiments or person.arms):
                    return
                changes = show(person, user_id, listed.experiments or {}, listed.generated_at)
            else:
                event = self._parser.parse(payload, int(time.time() * 1000))
                if event.event_type == "erase_user":
                    yield from self._forgotten(person, user_id)
                    return
                if not event.consent:
                    return
                event.user_id = user_id
                changes = take(person, event, appended_ms)
        except MessageError:
            return
        self._state.update(pack(person))
        for experiment_id, change in changes:
            yield Row(experiment_id, Row(msgspec.msgpack.encode(change)))

    def _forgotten(self, person: Outcomes, user_id: str) -> Iterator[Row]:
        self._state.clear()
        for experiment_id, arm in person.arms.items():
            yield Row(experiment_id, Row(msgspec.msgpack.encode(Change(user_id, arm, {}, "erase_user"))))
