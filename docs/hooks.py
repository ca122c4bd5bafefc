"""Makes the pages of the reference from the code, each time the site is built."""

import re
import sys
from pathlib import Path
from typing import Any

import msgspec
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deploy.local.topics import default_topics  # noqa: E402
from jobs.settings import Settings  # noqa: E402
from operators.metrics import METRICS  # noqa: E402
from schema.behaviour import AbandonedCart, Drift, FunnelStats, PersonSegment, Session, Trend  # noqa: E402
from schema.campaign import Campaign, Offer, OfferTry  # noqa: E402
from schema.category_items import CategoryItems  # noqa: E402
from schema.dead_letter import DeadLetter  # noqa: E402
from schema.erasure import Erasure  # noqa: E402
from schema.event import EVENT_TYPES, Event  # noqa: E402
from schema.experiment import Experiment, ExperimentResults, Exposure  # noqa: E402
from schema.forbidden_item import ForbiddenItem  # noqa: E402
from schema.item import Item  # noqa: E402
from schema.recommendation import Recommendation  # noqa: E402
from schema.review import Decision, Review  # noqa: E402
from schema.rule import Rule  # noqa: E402
from schema.similar_items import SimilarItems  # noqa: E402
from schema.taste_segment import TasteSegment  # noqa: E402
from serving.metrics import described  # noqa: E402
from serving.settings import ServingSettings  # noqa: E402

TOPICS: dict[str, tuple[type[msgspec.Struct] | type[BaseModel], str, str]] = {
    "events": (Event, "in", "anything; the user's id is advised"),
    "items": (Item, "in", "`item_id`; a null value removes the item"),
    "rules": (Rule, "in", "`rule_id`; a null value takes the rule back"),
    "experiments": (Experiment, "in", "`experiment_id`; a null value ends the experiment"),
    "experiment-results": (ExperimentResults, "out", "`experiment_id`"),
    "forbidden-items": (ForbiddenItem, "out", "`item_id`; a null value once it may be on lists again"),
    "review-queue": (Review, "out", "`item_id`; a null value once it waits no more"),
    "exposures": (Exposure, "out, of `jobs/experiments.py`", "`user_id`"),
    "review-decisions": (Decision, "in", "`item_id`; a null value takes the decision back"),
    "recommendations": (Recommendation, "out", "`user_id`; a null value after erasure"),
    "similar-items": (SimilarItems, "out", "`item_id`; a null value once the item is forgotten"),
    "category-items": (CategoryItems, "out", "`category`"),
    "taste-segments": (TasteSegment, "out", "`user_id`; a null value after erasure"),
    "dead-letters": (DeadLetter, "out", "none"),
    "erasures": (Erasure, "out", "none"),
    "campaigns": (Campaign, "in", "`campaign_id`; a null value ends the campaign"),
    "offers": (Offer, "out, of `jobs/marketing.py`", "`user_id`"),
    "offer-tries": (OfferTry, "out, of `jobs/marketing.py`", "`user_id`"),
    "sessions": (Session, "out, of `jobs/behaviour.py`", "`user_id`"),
    "funnel-stats": (FunnelStats, "out, of `jobs/behaviour.py`", "`category`"),
    "trends": (Trend, "out, of `jobs/behaviour.py`", "`id`"),
    "segments": (PersonSegment, "out, of `jobs/behaviour.py`", "`user_id`; a null value after erasure"),
    "abandoned-carts": (AbandonedCart, "out, of `jobs/behaviour.py`", "`user_id`"),
    "drift": (Drift, "out, of `jobs/behaviour.py`", "`user_id`"),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and those that lie at the root of the repository."""
    pages = {
        "reference/topics.md": topics(),
        "reference/configuration.md": configuration(),
        "reference/metrics.md": metrics(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(),
    }
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


def topics() -> str:
    """The topics and their messages, of `schema/`."""
    made = ["# Topics", "Values are JSON in UTF-8. Unknown fields are kept, not refused. Names can be set: `[kafka]`."]
    settings = default_topics()
    if settings.keys() != TOPICS.keys():
        raise ValueError(f"topics without a description, or the other way round: {settings.keys() ^ TOPICS.keys()}")
    for name, (struct, way, key) in TOPICS.items():
        kind = "compacted" if settings[name].compacted else "kept for as long as the broker keeps it"
        made += [
            f"## {name}",
            f"{way.capitalize()}, {kind}. Key: {key}.",
            (struct.__doc__ or "").replace("\n    ", "\n"),
        ]
        made.append(_fields(struct))
    made += ["## Types of events", ", ".join(f"`{name}`" for name in EVENT_TYPES)]
    return "\n\n".join(made) + "\n"


def _fields(struct: type[msgspec.Struct] | type[BaseModel]) -> str:
    if issubclass(struct, BaseModel):
        described, components, own = struct.model_json_schema(), {}, ""
    else:
        (schema,), components = msgspec.json.schema_components([struct], ref_template="{name}")
        described, own = components[schema["$ref"]], schema["$ref"]
    rows = ["| field | type | |", "| --- | --- | --- |"]
    for name, field in described["properties"].items():
        required = "required" if name in described.get("required", []) else f"default `{field.get('default')!r}`"
        rows.append(f"| `{name}` | {_type(field)} | {required} |")
    tables = "\n".join(rows)
    for name, inner in components.items():
        if name != own:
            fields = ", ".join(f"`{key}` ({_type(field)})" for key, field in inner["properties"].items())
            tables += f"\n\n`{name}`: {fields}."
    return tables


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"])
    if "$ref" in field:
        return f"`{field['$ref']}`"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    bounds = [f"{sign} {field[key]:g}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in field]
    return " ".join([field.get("type", "anything"), *bounds]) + (" (date-time)" if "format" in field else "")


def configuration() -> str:
    """Every setting: its type and default from the code, what it is for from the example."""
    made = [
        "# Configuration",
        "One TOML file for the job and the serving process; `HEADRACE_SECTION__FIELD` in the environment precedes it. "
        "A faulty configuration stops either before it starts, with every fault at once. "
        "`headrace.example.toml` is this page as a file.",
    ]
    said = _comments()
    job = {name: field for name, field in Settings.model_fields.items() if name != "serving"}
    for name, field in {**job, "serving": ServingSettings.model_fields["serving"]}.items():
        section: type[BaseModel] = field.annotation  # type: ignore[assignment]
        made += [f"## {name}", section.__doc__ or "", "| setting | type | default | |\n| --- | --- | --- | --- |"]
        for key, setting in section.model_fields.items():
            kind = _kind(section, key)
            default = "" if setting.default is None else f"`{_shown(setting.default)}`"
            made[-1] += f"\n| `{key}` | {kind} | {default} | {said.get((name, key), '')} |"
    return "\n\n".join(made) + "\n"


def _shown(default: object) -> str:
    return "" if "Secret" in type(default).__name__ else str(default)


def _kind(section: type[BaseModel], key: str) -> str:
    described = section.model_json_schema()["properties"][key]
    options = described.get("anyOf", [described])
    kinds = []
    for option in options:
        if "enum" in option:
            kinds.append(", ".join(f"`{value}`" for value in option["enum"]))
        elif option.get("type") != "null":
            signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"))
            kinds.append(" ".join([option["type"], *(f"{s} {option[k]:g}" for k, s in signs if k in option)]))
    return " or ".join(kinds)


def _comments() -> dict[tuple[str, str], str]:
    """The comments of the example, by section and setting."""
    found, section, waiting = {}, "", list[str]()
    for line in (ROOT / "headrace.example.toml").read_text().splitlines():
        setting = re.match(r"(?:# )?(\w+) = ", line)
        if line.startswith("["):
            section, waiting = line.strip("[]"), []
        elif setting:
            found[section, setting[1]], waiting = " ".join(waiting).replace("|", "\\|"), []
        elif line.startswith("#"):
            waiting.append(line.lstrip("# "))
        else:
            waiting = []
    return found


def metrics() -> str:
    """Every metric of ours, where the code makes it."""
    made = [
        "# Metrics",
        "Flink's own are on the same pages. What one is paged for is in `deploy/prometheus/alerts.yml`, what is worth "
        "a look in the Grafana dashboard.",
        "## The job",
        "On each TaskManager's Prometheus page, after `flink_taskmanager_job_task_operator_headrace_`.",
        "| metric | operator | kind | |\n| --- | --- | --- | --- |",
    ]
    for name, metric in METRICS.items():
        made[-1] += f"\n| `{name}` | {', '.join(metric.operators)} | {metric.kind} | {metric.says} |"
    made += ["## The serving process", "At `/metrics`.", "| metric | kind | |\n| --- | --- | --- |"]
    for metric in described():
        made[-1] += f"\n| `{metric.name}` | {metric.type} | {metric.documentation} |"
    return "\n\n".join(made) + "\n"
