"""Keyed by shard: tells each campaign that runs what a person did."""

from collections.abc import Iterator

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedCoProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

from operators.campaign_candidates import CANDIDATE, Candidate
from schema.campaign import Campaign, parse_campaign
from schema.errors import MessageError
from schema.steering import taken_before

_DAY_MS = 86_400_000
TOLD = Types.ROW([Types.STRING(), CANDIDATE])


class CampaignFanOutFunction(KeyedCoProcessFunction):
    """In: Row(user_id, packed `Candidate`), and Row(campaign_id, payload, partition, offset), a campaign's message, of
    which every shard gets a copy.
    Out: Row(campaign_id, Row(user_id, packed `Candidate`)) for each campaign that runs, or waits for outcomes, then.

    Keyed state `campaigns`: their definitions.
    """

    def open(self, runtime_context: RuntimeContext) -> None:
        """Register the state."""
        descriptor = MapStateDescriptor("campaigns", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        self._state = runtime_context.get_map_state(descriptor)
        # What the state holds, by shard, so that it is not read for every event.
        self._campaigns: dict[int, dict[str, Campaign]] = {}

    def process_element1(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[Row]:
        """Tell the campaigns."""
        user_id, packed = value
        told = msgspec.msgpack.decode(bytes(packed), type=Candidate)
        for campaign_id, campaign in self._known(ctx.get_current_key()).items():
            runs = campaign.begin_ms <= told.time_ms < campaign.end_ms + campaign.within_days * _DAY_MS
            if runs or told.event_type == "erase_user":
                yield Row(campaign_id, Row(user_id, packed))

    def process_element2(self, value: Row, ctx: KeyedCoProcessFunction.Context) -> Iterator[Row]:
        """Take a campaign."""
        campaign_id, payload, _, _ = value
        known = self._known(ctx.get_current_key())
        try:
            _, campaign = parse_campaign(campaign_id, None if payload is None else bytes(payload))
        except MessageError:
            # `operators.offers` makes a dead letter of it.
            return
        known.pop(campaign_id, None)
        if campaign is None:
            self._state.remove(campaign_id)
        else:
            known[campaign_id] = campaign
            self._state.put(campaign_id, bytes(payload))
        yield from ()

    def _known(self, shard: int) -> dict[str, Campaign]:
        if shard not in self._campaigns:
            found = {name: taken_before(parse_campaign, bytes(payload)) for name, payload in self._state.items()}
            self._campaigns[shard] = {name: campaign for name, campaign in found.items() if campaign is not None}
        return self._campaigns[shard]
