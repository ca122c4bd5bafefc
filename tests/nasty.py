"""Seeded bad input: valid messages with their fields, their JSON and their bytes broken in ways that break parsers."""

import json
import random
from typing import Any

VALUES: list[Any] = [
    None,
    True,
    "",
    " ",
    "\x00",
    "\ud800",
    "\u202e\U0001f600",
    "x" * 300,
    "__default__",
    0,
    -1,
    2**53,
    2**63,
    -(2**64),
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    -0.0,
    [],
    {},
    [[]],
    {"a": {"b": None}},
    "1970-01-01T00:00:00Z",
    "2020-01-01",
    1_600_000_000_000,
    "erase_user",
    "purchase",
]


def broken(message: dict[str, Any], chance: random.Random) -> bytes:
    """The message with one to three things wrong with it, or by luck none."""
    fields = dict(message)
    for _ in range(chance.randint(1, 3)):
        name = chance.choice([*fields, "surprise"])
        how = chance.randrange(4)
        if how == 0:
            fields.pop(name, None)
        else:
            fields[name] = chance.choice(VALUES)
    raw = bytearray(json.dumps(fields).encode())
    how = chance.randrange(30)
    if how == 0:
        for _ in range(chance.randint(1, 8)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
    elif how == 1:
        del raw[chance.randrange(len(raw)) :]
    elif how == 2:
        place = chance.randrange(len(raw))
        raw[place:place] = chance.randbytes(chance.randint(1, 16))
    elif how == 3:
        depth = chance.choice([10, 1_000, 5_000])
        raw[:] = b'{"user_id":"u1","properties":' + b"[" * depth + b"]" * depth + b"}"
    elif how == 4:
        raw[:] = raw[:-1] + b',"' + chance.choice(list(message)).encode() + b'":7}'
    return bytes(raw)
