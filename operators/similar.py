"""The side output of similar items: what goes with an item, as far as the learner knows."""

from pyflink.common import Types
from pyflink.datastream import OutputTag

SIMILAR = OutputTag(
    "similar-items",
    Types.ROW_NAMED(["item_id", "payload"], [Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())]),
)
