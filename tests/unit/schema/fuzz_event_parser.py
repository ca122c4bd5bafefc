"""An atheris target: any exception but MessageError out of the event parser is a crash."""

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["schema"]):
    from schema.errors import MessageError
    from schema.event import EventParser

PARSER = EventParser()


def parse(raw: bytes) -> None:
    """One input."""
    with contextlib.suppress(MessageError):
        PARSER.parse(raw, 1_700_000_000_000)


atheris.Setup(sys.argv, parse)
atheris.Fuzz()
