"""The side output of segments: which one a person is of, as far as the scorer knows."""

from pyflink.common import Types
from pyflink.datastream import OutputTag

TASTE_SEGMENTS = OutputTag(
    "taste-segments",
    Types.ROW_NAMED(["user_id", "payload"], [Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())]),
)
