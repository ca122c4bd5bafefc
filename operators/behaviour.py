"""Keyed by user: segments, abandoned carts and drifting interests, by event time."""

from collections import Counter
from collections.abc import Iterator
from typing import get_args

from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, OutputTag, RuntimeContext

from model.behaviour import (
    Action,
    BehaviourOptions,
    Person,
    abandoned,
    act,
    next_look,
    pack_person,
    segment,
    unpack_person,
)
from model.interest_drift import (
    DriftOptions,
    Interests,
    Shares,
    drifted,
    follow,
    pack_interests,
    unpack_interests,
)
from operators.state import kept_for
from schema.behaviour import Drift, Segment, encode_behaviour

MESSAGE = Types.ROW_NAMED(["user_id", "payload"], [Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())])
ABANDONED_CARTS = OutputTag("abandoned-carts", MESSAGE)
DRIFT = OutputTag("drift", MESSAGE)
_NEWEST = 5


class BehaviourFunction(KeyedProcessFunction):
    """In: rows of `operators.actions.ACTIONS`, with event time. Out: Row(user_id, segment), None after erasure,
    abandoned carts, and drifts.

    Keyed state, kept for `ttl_days` after the person's last action: `person`, one packed `model.behaviour.Person`, and
    `interests`, one packed `model.interest_drift.Interests`. One timer a person, by event time, looks again where the
    passing of time alone changes something. How often the whole shop takes each category is learned anew after a
    restart.
    """

    def __init__(self, options: BehaviourOptions, drift: DriftOptions, ttl_days: float) -> None:
        self._options, self._drift, self._ttl_days = options, drift, ttl_days

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the state and the metrics."""
        names = ("person", "interests")
        states = [runtime_context.get_state(kept_for(self._ttl_days, name)) for name in names]
        self._state, self._interests = states
        self._shares = Shares()
        metrics = runtime_context.get_metrics_group().add_group("headrace")
        self._drifts, self._carts = metrics.counter("drifts"), metrics.counter("abandoned_carts")
        self._changes = {name: metrics.add_group("segment", name).counter("changes") for name in get_args(Segment)}

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[object]:
        """Take one action."""
        user_id, _, event_type, item_id, category, price, time_ms = value
        packed = self._state.value()
        if event_type == "erase_user":
            look_ms = -1 if packed is None else unpack_person(packed).look_ms
            if look_ms >= 0:
                ctx.timer_service().delete_event_time_timer(look_ms)
            self._state.clear()
            self._interests.clear()
            # Also where the state has expired, which the topic's value does not.
            yield Row(user_id, None)
            return
        person = Person() if packed is None else unpack_person(packed)
        act(person, Action(user_id, event_type, item_id, category, price, time_ms), self._options)
        # As late as it is by now: an old action makes nobody come back.
        watermark = ctx.timer_service().current_watermark()
        now = max(person.last_ms, watermark)
        changed = segment(person, user_id, now, self._options)
        self._look_again(person, watermark, ctx)
        self._state.update(pack_person(person))
        if changed is not None:
            self._changes[changed.segment].inc()
            yield Row(user_id, encode_behaviour(changed))
        if category is not None and item_id is not None and event_type != "impression":
            yield from self._drifted(user_id, category, item_id, time_ms)

    def _drifted(self, user_id: str, category: str, item_id: str, time_ms: int) -> Iterator[object]:
        self._shares.add(category)
        packed = self._interests.value()
        interests = Interests() if packed is None else unpack_interests(packed)
        score = follow(interests, category, item_id, time_ms, self._shares, self._drift)
        categories, since, until = [*interests.categories], interests.times[0], interests.times[-1]
        if drifted(interests, score, self._drift):
            newest = [name for name, _ in Counter(categories).most_common(_NEWEST)]
            found = Drift(user_id, until, since, round(score - self._drift.threshold, 3), newest)
            self._drifts.inc()
            yield DRIFT, Row(user_id, encode_behaviour(found))
        self._interests.update(pack_interests(interests))

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[object]:
        """Look at a person again."""
        packed, user_id = self._state.value(), ctx.get_current_key()
        if packed is None:
            return
        person = unpack_person(packed)
        if person.look_ms <= timestamp:
            person.look_ms = -1
        left = abandoned(person, user_id, timestamp, self._options)
        changed = segment(person, user_id, max(timestamp, person.last_ms), self._options)
        # From here on and not from the watermark, which may be past the next one.
        self._look_again(person, timestamp, ctx)
        self._state.update(pack_person(person))
        if left is not None:
            self._carts.inc()
            yield ABANDONED_CARTS, Row(user_id, encode_behaviour(left))
        if changed is not None:
            self._changes[changed.segment].inc()
            yield Row(user_id, encode_behaviour(changed))

    def _look_again(self, person: Person, now_ms: int, ctx: KeyedProcessFunction.Context) -> None:
        at = next_look(person, now_ms, self._options)
        # An earlier look does no harm, and then finds the next.
        if at is None or 0 <= person.look_ms <= at:
            return
        if person.look_ms >= 0:
            ctx.timer_service().delete_event_time_timer(person.look_ms)
        person.look_ms = at
        ctx.timer_service().register_event_time_timer(at)
