"""The side output of similar items: of many items at once what goes with each, as far as the learner knows."""

from pyflink.common import Types
from pyflink.datastream import OutputTag

SIMILAR = OutputTag(
    "similar-items",
    Types.ROW([Types.MAP(Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE()))]),
)
