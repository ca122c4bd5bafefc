"""The side output of receipts: what was erased of a user who asked for it."""

from pyflink.common import Types
from pyflink.datastream import OutputTag

RECEIPTS = OutputTag("receipts", Types.ROW_NAMED(["payload"], [Types.PRIMITIVE_ARRAY(Types.BYTE())]))
