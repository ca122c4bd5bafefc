"""The side output of the review queue: items that a rule keeps off lists until somebody has decided."""

from pyflink.common import Types
from pyflink.datastream import OutputTag

REVIEW_QUEUE = OutputTag(
    "review-queue",
    Types.ROW_NAMED(["item_id", "payload"], [Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())]),
)
