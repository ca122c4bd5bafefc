"""What the shop decides of lists: the compacted topic `rules`."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import cel
from pydantic import AwareDatetime, BaseModel, Field, field_validator, model_validator

from schema.steering import STRICT, parse_steering

MAX_EXPRESSION = 1_000
"""Characters. The parser of CEL goes as deep as an expression has terms, on the stack of a Flink thread."""
_MACRO = re.compile(r"\.\s*(all|exists|exists_one|map|filter)\s*\(")
Group = Literal["category", "brand", "seller"]
ITEM: dict[str, Any] = {
    "id": "",
    "title": "",
    "category": [""],
    "brand": "",
    "seller": "",
    "price": 0.0,
    "currency": "",
    "created_at": 0,
    "attributes": {},
}
"""What `items` may ask of an item, with values of the right types: an unknown number is -1.0, an unknown text ""."""
PERSON: dict[str, Any] = {
    "id": "",
    "segment": -1,
    "behaviour": "",
    "price_sensitive": False,
    "events": 0,
    "arms": {},
}
EVENT: dict[str, Any] = {"type": "", "properties": {}}
"""What `when` may ask of the event after which the list is made; of that for people without history all is empty."""
NOW: dict[str, Any] = {"hour": 0, "minute": 0, "weekday": 1, "date": "2026-01-01"}
"""What `when` may ask, beside `person` and `event`, of the moment in the rule's `timezone`; Monday is 1."""
_OF_ACTION: dict[str, tuple[str, ...]] = {
    "filter": (),
    "boost": ("amount",),
    "pin": ("position",),
    "share": ("share",),
    "cap": ("by", "at_most"),
    "at_least": ("at_least",),
    "review": (),
}


_ARGUMENTS = sorted({name for names in _OF_ACTION.values() for name in names})


class Rule(BaseModel):
    """One rule. It holds for the items that `item_ids` names, where it does, and for which the CEL expression `items`
    is true, on the lists for which `when` is true, between `from` and `until`.

    `action` is one of: filter (never on a list), boost (by `amount` from -1, a hundredth of the item's chance, to 1, a
    hundred times it), pin (one of them at `position`, the first being 1), share (that `share` of the list is of
    them, within one item), cap (`at_most` so many of each category, `by` its broadest level, brand or seller),
    at_least (that many of them), review (kept off lists until a decision allows them). Where rules contradict each
    other the one of the higher `priority` goes first, and of equals the one whose id comes first.
    """

    model_config = STRICT

    rule_id: Annotated[str, Field(min_length=1, max_length=256)]
    action: Literal["filter", "boost", "pin", "share", "cap", "at_least", "review"]
    item_ids: Annotated[list[str], Field(max_length=10_000)] | None = None
    items: str = "true"
    when: str = "true"
    amount: Annotated[float, Field(ge=-1, le=1)] | None = None
    position: Annotated[int, Field(ge=1, le=1000)] | None = None
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    by: Group | None = None
    at_most: Annotated[int, Field(ge=0, le=1000)] | None = None
    at_least: Annotated[int, Field(ge=1, le=1000)] | None = None
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    starts: Annotated[AwareDatetime | None, Field(alias="from", strict=False)] = None
    ends: Annotated[AwareDatetime | None, Field(alias="until", strict=False)] = None
    timezone: str = "UTC"
    note: str = ""

    @field_validator("items")
    @classmethod
    def _asks_of_items(cls, expression: str) -> str:
        _try(expression, {"item": ITEM})
        return expression

    @field_validator("when")
    @classmethod
    def _asks_of_people(cls, expression: str) -> str:
        _try(expression, {"person": PERSON, "event": EVENT, "now": NOW})
        return expression

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"is no time zone: {error}") from None
        return name

    @model_validator(mode="after")
    def _has_what_its_action_needs(self) -> Self:
        faults = _misfits(dict(self))
        if self.starts is not None and self.ends is not None and self.starts >= self.ends:
            faults.append("from must come before until")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def holds_at(self, moment: datetime) -> bool:
        """Whether the moment, with its time zone, lies between `from` and `until`."""
        return (self.starts is None or self.starts <= moment) and (self.ends is None or moment < self.ends)


def parse_rule(key: str | None, raw: bytes | None) -> tuple[str, Rule | None]:
    """The rule's id and the rule, None where it is taken back (no value, or JSON null). Raises MessageError with every
    fault."""
    return parse_steering("rule", Rule, key, raw, _misfits)


def now_in(zone: str, moment_ms: int) -> dict[str, Any]:
    """What `when` knows of the moment in epoch milliseconds."""
    local = datetime.fromtimestamp(moment_ms / 1000, UTC).astimezone(ZoneInfo(zone))
    return {
        "hour": local.hour,
        "minute": local.minute,
        "weekday": local.isoweekday(),
        "date": local.date().isoformat(),
    }


def _misfits(given: Mapping[str, Any]) -> list[str]:
    """What a rule's action lacks of its arguments, and which of those given are not its own."""
    action = given.get("action")
    wanted = _OF_ACTION.get(action) if isinstance(action, str) else None
    if wanted is None:
        return []
    arguments = [name for name in _ARGUMENTS if given.get(name) is not None]
    lacks = [f"{action} needs {name}" for name in wanted if name not in arguments]
    return lacks + [f"{action} takes no {name}" for name in arguments if name not in wanted]


def _try(expression: str, sample: dict[str, Any]) -> None:
    """Raises ValueError where the expression is no CEL, asks for what there is not, or is not true or false."""
    if len(expression) > MAX_EXPRESSION:
        raise ValueError(f"has {len(expression)} characters, at most {MAX_EXPRESSION} are taken")
    if len(_MACRO.findall(expression)) > 2:
        raise ValueError("goes through lists more than twice, which takes too long for every item")
    try:
        program = cel.compile(expression)
        context = cel.Context()
        for name, value in sample.items():
            context.add_variable(name, value)
        found = program.execute(context)
    except KeyError as error:
        raise ValueError(f"asks for {error}, which there is not") from None
    except Exception as error:
        # The library raises several kinds, and draws the place under some.
        raise ValueError(re.sub(r"\s*\n.*", "", str(error), flags=re.DOTALL)) from None
    if not isinstance(found, bool):
        raise ValueError(f"is {type(found).__name__}, not true or false")
