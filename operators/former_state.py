"""What an operator kept while it ran in a Python process beside the JVM, read by the same operator in thread mode.

PyFlink stores state otherwise there: its name has a prefix, a value is a list of one element, the keys of a map are
wrapped, and all goes through the coders of `pyflink.fn_execution.coder_impl_slow`: a length in front of each pickle and
text, and numbers in eight bytes.
"""

import pickle
import struct
from collections.abc import Iterator
from typing import Any

from pyflink.datastream import RuntimeContext

_NAME, _LENGTH = "python-state-{}", 4


def former_value(runtime_context: RuntimeContext, name: str) -> Any:
    """The value state of the current key, of pickles; None where there is none. It is cleared."""
    state = _state(runtime_context, "List", name, _bytes_serializer())
    found = [pickle.loads(element[_LENGTH:]) for element in state.get() or ()]
    state.clear()
    return found[-1] if found else None


def former_map(runtime_context: RuntimeContext, name: str) -> Iterator[tuple[bytes, Any]]:
    """The entries of the map state of the current key, of pickles by numbers or texts, which stay as they were coded:
    `number_of`, `text_of`. It is cleared."""
    keys = _java("streaming.api.utils.ByteArrayWrapperSerializer").INSTANCE
    state = _state(runtime_context, "Map", name, keys, _bytes_serializer())
    for entry in state.entries() or ():
        key = entry.getKey()
        yield key.getData()[key.getOffset() : key.getLimit()], pickle.loads(entry.getValue()[_LENGTH:])
    state.clear()


def number_of(key: bytes) -> int:
    """A key that is a number."""
    return int(struct.unpack(">q", key)[0])


def text_of(key: bytes) -> str:
    """A key that is a text."""
    return key[_LENGTH:].decode()


def _state(runtime_context: RuntimeContext, kind: str, name: str, *serializers: Any) -> Any:
    descriptor = _java(f"api.common.state.{kind}StateDescriptor")(_NAME.format(name), *serializers)
    namespace, backend = _java("runtime.state.VoidNamespace").INSTANCE, runtime_context.get_keyed_state_backend()
    return backend._keyed_state_backend.getPartitionedState(namespace, backend._window_serializer, descriptor)


def _bytes_serializer() -> Any:
    return _java("api.common.typeutils.base.array.BytePrimitiveArraySerializer").INSTANCE


def _java(name: str) -> Any:
    # It is there inside of a JVM alone.
    from pemja import findClass

    return findClass(f"org.apache.flink.{name}")
