"""Keyed state that is kept for a while."""

from pyflink.common import Types
from pyflink.common.time import Time
from pyflink.datastream.state import StateTtlConfig, ValueStateDescriptor

DAY_MS = 86_400_000


def kept_for(days: float, name: str) -> ValueStateDescriptor:
    """A state of bytes that is kept for so many days after it was written last."""
    descriptor = ValueStateDescriptor(name, Types.PICKLED_BYTE_ARRAY())
    # The same clean-up as the default, said in full: PyFlink's default starts a second JVM to hold one duration.
    time_to_live = StateTtlConfig.new_builder(Time.milliseconds(int(days * DAY_MS))).disable_cleanup_in_background()
    descriptor.enable_time_to_live(time_to_live.cleanup_in_rocksdb_compact_filter(1000, Time.days(30)).build())
    return descriptor
