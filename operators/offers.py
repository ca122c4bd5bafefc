"""Keyed by campaign: decides who gets an offer, within budget and pace, and learns for whom it changes something."""

from collections.abc import Iterator
from functools import lru_cache

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedCoProcessFunction, OutputTag, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor
from pyflink.metrics import Distribution

from model.campaigns import (
    DAY_MS,
    LEARNED,
    Budget,
    Member,
    decide,
    eligible,
    pack,
    unpack_budget,
    unpack_member,
)
from model.uplift import Uplift, features_of, pack_uplifts, unpack_uplifts
from operators.campaign_candidates import Candidate
from operators.dead_letters import DeadLetters
from schema.campaign import Campaign, encode_offer, parse_campaign
from schema.errors import MessageError
from schema.steering import taken_before

OFFERS = Types.ROW_NAMED(["user_id", "payload"], [Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())])
CAMPAIGN = Types.ROW_NAMED(
    ["campaign_id", "payload", "partition", "offset"],
    [Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE()), Types.INT(), Types.LONG()],
)
TRIES = OutputTag("offer-tries", OFFERS)
_SWEPT, _LATE_MS = 1000, 3_600_000


class OffersFunction(KeyedCoProcessFunction):
    """In: Row(user_id, packed `operators.campaign_candidates.Candidate`), and a campaign's
    message, Row(campaign_id, payload, partition, offset), with a payload of None at its end. Out: Row(user_id, offer);
    beside it, of each time that it was decided whether there is one, Row(user_id, try); and a dead letter for each
    campaign that is not valid: the one before it stays.

    Keyed state: `campaign`, its definition; `budget`, one packed `model.campaigns.Budget`; `uplift`, a packed
    `model.uplift.Uplift` of each of its offers; and `members`, by user, one packed `model.campaigns.Member` each, until
    the outcomes of its last offers are known. All of it is in the same checkpoint as the offers that Kafka shows, so
    that no restart spends twice.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the state and the metrics."""
        names = ("campaign", "budget", "uplift")
        states = [runtime_context.get_state(ValueStateDescriptor(name, Types.PICKLED_BYTE_ARRAY())) for name in names]
        self._definition, self._budget, self._uplift = states
        members = MapStateDescriptor("members", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        self._members = runtime_context.get_map_state(members)
        metrics = runtime_context.get_metrics_group().add_group("headrace")
        self._dead_letters = DeadLetters(metrics)
        self._models: dict[str, dict[str, Uplift]] = {}
        self._key = ""
        self._made = metrics.counter("offers")
        # Of the campaigns of which somebody was heard of since the operator started, what was spent and may be.
        self._metrics, self._spent = metrics, dict[str, tuple[Distribution, Distribution]]()

    def process_element1(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[object]:
        """Take what a person did: an outcome, and a moment at which they might get an offer."""
        user_id, packed = value
        self._key = ctx.get_current_key()
        definition = self._definition.value()
        if definition is None:
            return
        campaign = _campaign(bytes(definition))
        if campaign is None:
            return
        told = msgspec.msgpack.decode(bytes(packed), type=Candidate)
        # A clock that is ahead is not to spend what is to come.
        told.time_ms = min(told.time_ms, ctx.timer_service().current_processing_time())
        if told.event_type == "erase_user":
            self._members.remove(user_id)
            return
        state = self._budget.value()
        budget = Budget() if state is None else unpack_budget(state)
        before = budget.now_ms
        budget.now_ms = max(before, told.time_ms)
        if before >= 0 and before // DAY_MS != budget.now_ms // DAY_MS:
            # First, as it learns from what the state holds of this person too.
            self._sweep(campaign, budget.now_ms)
        kept = self._members.get(user_id) if self._members.contains(user_id) else None
        member = Member() if kept is None else unpack_member(kept)
        self._follow(campaign, member, told)
        if eligible(campaign, member, told.segment, told.time_ms, told.values.get("price_sensitive") == "True"):
            features = features_of(told.values)
            tried, offer = decide(campaign, budget, member, user_id, self._scores(campaign, features), told.time_ms)
            if member.tried_ms == told.time_ms:
                member.features, member.reached = features, False
            self._show(budget.spent, campaign.budget)
            if tried is not None:
                yield TRIES, Row(user_id, encode_offer(tried))
            if offer is not None:
                self._made.inc()
                yield Row(user_id, encode_offer(offer))
        self._budget.update(pack(budget))
        if member.tried_ms >= 0:
            self._members.put(user_id, pack(member))
            if kept is None:
                self._look_again(campaign, ctx)

    def process_element2(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[object]:
        """Take a campaign. One that changes goes on with what it has spent."""
        campaign_id, payload, partition, offset = value
        payload = None if payload is None else bytes(payload)
        try:
            _, campaign = parse_campaign(campaign_id, payload)
        except MessageError as error:
            yield self._dead_letters.of(error, self._topic, partition, offset, payload)
            return
        if campaign is None:
            # Its people may be many: what is kept of them goes, what was spent stays known.
            for state in (self._definition, self._uplift, self._members):
                state.clear()
            self._models.pop(campaign_id, None)
            for metric in self._spent.get(campaign_id, ()):
                metric.update(0)
            return
        self._definition.update(payload)

    def on_timer(self, timestamp: int, ctx: KeyedCoProcessFunction.OnTimerContext) -> Iterator[object]:
        """Learn from the last outcomes, and forget the people of a campaign that is over."""
        definition, self._key = self._definition.value(), ctx.get_current_key()
        campaign = None if definition is None else _campaign(bytes(definition))
        if campaign is None:
            return
        if timestamp < campaign.over_ms or ctx.timer_service().current_processing_time() > timestamp + _LATE_MS:
            # It was made longer meanwhile, or the job was away, and outcomes are still to be heard of.
            self._look_again(campaign, ctx)
            return
        self._sweep(campaign, timestamp + 1)
        self._members.clear()
        yield from ()

    def _show(self, spent: float, budget: float) -> None:
        """Let the campaign's metrics say this."""
        if self._key not in self._spent:
            group = self._metrics.add_group("campaign", self._key)
            self._spent[self._key] = group.distribution("spent"), group.distribution("budget")
        for metric, value in zip(self._spent[self._key], (spent, budget), strict=True):
            metric.update(int(value))

    def _look_again(self, campaign: Campaign, ctx: KeyedCoProcessFunction.Context) -> None:
        """Once it is over, and a day from now at least; the same for all people of a day, so that it is one timer."""
        timers = ctx.timer_service()
        day = timers.current_processing_time() // DAY_MS
        timers.register_processing_time_timer(max(campaign.over_ms, (day + 2) * DAY_MS))

    def _follow(self, campaign: Campaign, member: Member, told: Candidate) -> None:
        """Note an outcome of the last try, and learn from it."""
        over = member.tried_ms + campaign.within_days * DAY_MS
        if member.features and told.event_type == campaign.outcome and member.tried_ms < told.time_ms <= over:
            member.reached = True
        # Not before: else those who come at once would be all that it learns from.
        if member.features and told.time_ms > over:
            self._learn(campaign, [member])

    def _sweep(self, campaign: Campaign, now_ms: int) -> None:
        """Learn from everybody whose time is over: most of them do not come back to say so."""
        within_ms, over = campaign.within_days * DAY_MS, []
        for user, kept in self._members.items():
            member = unpack_member(bytes(kept))
            if member.features and now_ms > member.tried_ms + within_ms:
                over.append(user)
        # Some at a time, as they may be many: the sums are the same.
        for first in range(0, len(over), _SWEPT):
            users = over[first : first + _SWEPT]
            members = [unpack_member(bytes(self._members.get(user))) for user in users]
            self._learn(campaign, members)
            for user, member in zip(users, members, strict=True):
                self._members.put(user, pack(member))

    def _learn(self, campaign: Campaign, members: list[Member]) -> None:
        models = self._models_of(campaign)
        for name, model in models.items():
            # Who got nothing is whom all of them are measured by.
            told = [one for one in members if not one.treated or one.name == name]
            treated, reached = [one.treated for one in told], [float(one.reached) for one in told]
            model.learn([one.features for one in told], treated, reached)
        self._uplift.update(pack_uplifts(models))
        for member in members:
            member.features = {}

    def _scores(self, campaign: Campaign, features: dict[str, float]) -> dict[str, float | None]:
        """How much each offer adds, None where too few are known who got it, or nothing."""
        return {
            name: float(model.score([features])[0]) if min(model.people) >= LEARNED else None
            for name, model in self._models_of(campaign).items()
        }

    def _models_of(self, campaign: Campaign) -> dict[str, Uplift]:
        """Of the campaign's offers, read from its state once: unpacking and solving costs more than all else of an
        event. Those of offers that it has no more are left out."""
        campaign_id = self._key
        if campaign_id not in self._models:
            packed = self._uplift.value()
            self._models[campaign_id] = {} if packed is None else unpack_uplifts(bytes(packed))
        models = self._models[campaign_id]
        if models.keys() != campaign.priced.keys():
            models = {name: models.get(name) or Uplift() for name in campaign.priced}
            self._models[campaign_id] = models
        return models


@lru_cache(64)
def _campaign(definition: bytes) -> Campaign | None:
    return taken_before(parse_campaign, definition)
