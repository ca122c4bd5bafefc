"""`headrace capacity`: what a shop of a given size needs, from what the benchmarks measured."""

import math
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import typer
from rich.table import Table

from cli.common import Json, console

_MEASURED = Path(__file__).with_suffix(".json")
_HEADROOM = 0.6
"""How busy a part may be at the peak: the rest is for catching up after a restart."""


class Coefficients(msgspec.Struct, forbid_unknown_fields=True):
    """What one part does or takes, as `headrace bench all` measures it."""

    events_per_second_a_pair: float
    """Of a TaskManager for profiles and one for lists, a core each (`bench floor`, at 10,000 items)."""
    interactions_per_second_learned: float
    """By the one learner (`bench learner`)."""
    us_a_list: dict[str, float]
    """By the size of the catalogue (`bench scorer`)."""
    bytes_an_interaction: float
    """In a packed profile (`bench profile`)."""
    state_over_packed: float
    """Bytes of checkpointed state over those of the packed profile (`bench state`)."""
    bytes_an_item: float
    """In the memory of the learner, and of each scorer (docs/faults.md)."""
    bytes_an_event: float
    bytes_a_list: float
    bytes_a_delta: float
    """That the learner sends each scorer, an interaction."""


class Plan(msgspec.Struct):
    """What is needed. Sizes are in bytes, rates in bytes a second; `learner_load` above 1 cannot be had."""

    profile_taskmanagers: int
    scorer_taskmanagers: int
    state: float
    state_a_taskmanager: float
    model_a_process: float
    learner_load: float
    events_in: float
    lists_out: float
    deltas: float
    limits: list[str]


def plan(
    users: int, items: int, events_per_second: float, interactions: int, max_items: int, measured: Coefficients
) -> Plan:
    """The plan for so many users with so many interactions each on average, of whom events come at such a peak."""
    known = min(items, max_items)
    sizes = sorted((int(size), us) for size, us in measured.us_a_list.items())
    us_a_list = float(np.interp(np.log(known), np.log([size for size, _ in sizes]), [us for _, us in sizes]))
    # A pair was measured at the smallest catalogue, where a list costs the least.
    slower = us_a_list / sizes[0][1]
    per_core = measured.events_per_second_a_pair * _HEADROOM
    profiles = math.ceil(round(events_per_second / per_core, 6))
    scorers = math.ceil(round(events_per_second * slower / per_core, 6))
    state = users * interactions * measured.bytes_an_interaction * measured.state_over_packed
    model = known * measured.bytes_an_item
    load = events_per_second / measured.interactions_per_second_learned
    deltas = min(events_per_second, measured.interactions_per_second_learned) * measured.bytes_a_delta * scorers
    limits = []
    if load > _HEADROOM:
        limits.append(
            f"The one learner would be at {load:.0%}: give weight 0 to views, or send it a share of the events; lists "
            "do not wait for it, but what it teaches comes late."
        )
    if items > max_items:
        limits.append(
            f"models.max_items is {max_items:,}: {items - max_items:,} items, the least popular, are unknown."
        )
    if model > 32e9:
        limits.append(f"Each scorer holds the whole model, {_size(model)}: fewer neighbours, or fewer items.")
    if deltas > 1e9:
        limits.append(f"Deltas to {scorers:,} scorers take {_size(deltas)}/s of the learner's network.")
    if profiles > 128:
        limits.append("flink.max_parallelism is 128 by default, and cannot change once there is state.")
    return Plan(
        profiles,
        scorers,
        state,
        state / profiles,
        model,
        load,
        events_per_second * measured.bytes_an_event,
        events_per_second * measured.bytes_a_list,
        deltas,
        limits,
    )


def capacity(
    users: Annotated[int, typer.Option(min=1, help="People with a profile.")],
    items: Annotated[int, typer.Option(min=1, help="Items of the catalogue.")],
    events_per_second: Annotated[float, typer.Option(min=0.001, help="Events a second at the peak.")],
    interactions: Annotated[int, typer.Option(min=1, help="Interactions in a profile, on average.")] = 50,
    max_items: Annotated[int, typer.Option(min=100, help="models.max_items.")] = 200_000,
    coefficients: Annotated[
        Path, typer.Option(exists=True, help="What your machine does (JSON).", show_default="cli/capacity.json")
    ] = _MEASURED,
    as_json: Json = False,
) -> None:
    """What a shop of this size needs, and what is in its way. At the peak each part is 60 % busy."""
    measured = msgspec.json.decode(coefficients.read_bytes(), type=Coefficients)
    found = plan(users, items, events_per_second, interactions, max_items, measured)
    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    table = Table("What", "How much")
    table.add_row("TaskManagers for profiles, a core each", f"{found.profile_taskmanagers:,}")
    table.add_row("TaskManagers for lists, a core each", f"{found.scorer_taskmanagers:,}")
    table.add_row("TaskManagers for the learner, a core", "1")
    table.add_row("State of profiles, in all", _size(found.state))
    table.add_row("State of profiles, a TaskManager", _size(found.state_a_taskmanager))
    table.add_row("Model in the learner, and in each scorer", _size(found.model_a_process))
    table.add_row("Load of the learner", f"{found.learner_load:.0%}")
    table.add_row("Events in", f"{_size(found.events_in)}/s")
    table.add_row("Lists out", f"{_size(found.lists_out)}/s")
    table.add_row("Deltas to the scorers", f"{_size(found.deltas)}/s")
    console.print(table)
    for limit in found.limits:
        console.print(f"- {limit}", soft_wrap=True)


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.3g} {unit}" if size < 1000 else f"{size:,.0f} {unit}"
        size /= 1000
    raise AssertionError


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel="The job")(capacity)
