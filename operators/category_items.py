"""The side output of what is popular in a category, as far as the learner knows."""

from pyflink.common import Types
from pyflink.datastream import OutputTag

CATEGORY_ITEMS = OutputTag(
    "category-items",
    Types.ROW_NAMED(["category", "payload"], [Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())]),
)
