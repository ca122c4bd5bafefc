"""The side output of items that no list may hold any more, or may hold again."""

from pyflink.common import Types
from pyflink.datastream import OutputTag

FORBIDDEN_ITEMS = OutputTag(
    "forbidden-items",
    Types.ROW_NAMED(["item_id", "payload"], [Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())]),
)
