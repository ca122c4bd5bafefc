"""The Grafana dashboard: `python -m deploy.grafana.dashboard` writes `dashboards/headrace.json`."""

from itertools import count
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef

FILE = Path(__file__).parent / "dashboards" / "headrace.json"

_OPERATOR = "flink_taskmanager_job_task_operator_headrace_"
_SERVING = "headrace_serving_"
_SIGNED = "none"

ROWS: dict[str, list[tuple[str, str, list[tuple[str, str]]]]] = {
    "Health": [
        (
            "Events",
            "ops",
            [
                ("accepted", f"sum(rate({_OPERATOR}events_accepted[1m]))"),
                ("late", f"sum(rate({_OPERATOR}events_late[1m]))"),
                ("duplicate", f"sum(rate({_OPERATOR}events_duplicate[1m]))"),
                ("without consent", f"sum(rate({_OPERATOR}events_session_only[1m]))"),
            ],
        ),
        (
            "Lists and lessons",
            "ops",
            [
                ("lists sent", f"sum(rate({_OPERATOR}lists_sent[1m]))"),
                ("interactions learned", f"sum(rate({_OPERATOR}interactions_learned[1m]))"),
            ],
        ),
        (
            "Rules",
            "short",
            [
                ("rules", f"max({_OPERATOR}rules)"),
                ("items that wait for a decision", f"max({_OPERATOR}review_waiting)"),
                ("items on nobody's list", f"max({_OPERATOR}items_forbidden)"),
            ],
        ),
        ("Dead letters by code", "ops", [("{{code}}", f"sum by (code) (rate({_OPERATOR}code_dead_letters[1m]))")]),
        (
            "Restarts and failed checkpoints",
            "short",
            [
                ("restarts", "max(flink_jobmanager_job_numRestarts)"),
                ("failed checkpoints", "max(flink_jobmanager_job_numberOfFailedCheckpoints)"),
            ],
        ),
        (
            "Messages that wait",
            "short",
            [
                ("for the job", "sum(flink_taskmanager_job_task_operator_pendingRecords)"),
                ("for serving, since its start", f"sum({_SERVING}behind)"),
            ],
        ),
        ("Answers by status", "reqps", [("{{status}}", f"sum by (status) (rate({_SERVING}requests_total[1m]))")]),
    ],
    "Freshness": [
        (
            "From event to list, at the topics",
            "s",
            [
                ("p50", "histogram_quantile(0.5, sum by (le) (rate(headrace_freshness_seconds_bucket[1m])))"),
                ("p99", "histogram_quantile(0.99, sum by (le) (rate(headrace_freshness_seconds_bucket[1m])))"),
            ],
        ),
        (
            "From event to list, at the scorer",
            "ms",
            [("worst", f"max({_OPERATOR}freshness_ms)"), ("mean", f"avg({_OPERATOR}freshness_ms)")],
        ),
        (
            "Time a batch",
            "ms",
            [("learner", f"max({_OPERATOR}learner_ms)"), ("scorer", f"max({_OPERATOR}scorer_ms)")],
        ),
        ("Model behind the learner's", "ms", [("worst", f"max({_OPERATOR}replica_lag_ms)")]),
        (
            "Time a request",
            "s",
            [
                (
                    "p50",
                    f"histogram_quantile(0.5, sum by (le) (rate({_SERVING}request_seconds_bucket[1m])))",
                ),
                (
                    "p99",
                    f"histogram_quantile(0.99, sum by (le) (rate({_SERVING}request_seconds_bucket[1m])))",
                ),
            ],
        ),
    ],
    "Quality": [
        (
            "Prequential, at the scorer",
            "percentunit",
            [
                ("hit", f"avg({_OPERATOR}prequential_hit) / 1000000"),
                ("nDCG", f"avg({_OPERATOR}prequential_ndcg) / 1000000"),
            ],
        ),
        (
            "Sequence model",
            "short",
            [
                ("updates a second", f"sum(rate({_OPERATOR}sequence_updates[1m]))"),
                ("failures", f"sum({_OPERATOR}sequence_failures)"),
                ("late lists without it, a second", f"sum(rate({_OPERATOR}lists_without_sequence[1m]))"),
            ],
        ),
        (
            "Text encoder",
            "short",
            [
                ("items a second", f"sum(rate({_OPERATOR}items_encoded[1m]))"),
                ("failed, since its start", f"sum({_OPERATOR}encoder_failures)"),
            ],
        ),
        ("Prequential hit at 20, at the topics", "percentunit", [("hit", "avg(headrace_prequential_hit)")]),
    ],
    "State": [
        ("Model version", "short", [("version", f"max({_OPERATOR}model_version)")]),
        ("Checkpoint size", "bytes", [("newest", "max(flink_jobmanager_job_lastCheckpointSize)")]),
        ("Checkpoint time", "ms", [("newest", "max(flink_jobmanager_job_lastCheckpointDuration)")]),
        (
            "The serving view",
            "short",
            [("users", f"max({_SERVING}users)"), ("items", f"max({_SERVING}items)")],
        ),
    ],
    "Cost": [
        (
            "How busy the steps are",
            "percentunit",
            [("{{task_name}}", "max by (task_name) (flink_taskmanager_job_task_busyTimeMsPerSecond) / 1000")],
        ),
        (
            "Processors",
            "percentunit",
            [
                ("{{host}}", "max by (host) (flink_taskmanager_Status_JVM_CPU_Load)"),
                ("serving", "sum(rate(process_cpu_seconds_total[1m]))"),
            ],
        ),
        (
            "Memory",
            "bytes",
            [
                ("heap of {{host}}", "max by (host) (flink_taskmanager_Status_JVM_Memory_Heap_Used)"),
                ("serving", "sum(process_resident_memory_bytes)"),
            ],
        ),
        (
            "People of one batch of lists",
            "short",
            [("largest", f"max({_OPERATOR}batch_size)"), ("mean", f"avg({_OPERATOR}batch_size)")],
        ),
        ("People who wait for a list", "short", [("waiting", f"sum({_OPERATOR}people_waiting)")]),
    ],
}
"""By row: the title of a panel, its unit, and its lines with their queries."""

OTHER_JOBS: dict[str, list[tuple[str, str, list[tuple[str, str]]]]] = {
    "Behaviour, experiments, campaigns": [
        (
            "Events in the job of behaviour",
            "ops",
            [
                ("taken", f"sum(rate({_OPERATOR}actions_taken[1m]))"),
                ("refused", f"sum(rate({_OPERATOR}actions_refused[1m]))"),
            ],
        ),
        ("Experiments with wrong sizes", "short", [("experiments", f"sum({_OPERATOR}sample_ratio_mismatches)")]),
        (
            "Offers",
            "short",
            [("a second", f"sum(rate({_OPERATOR}offers[1m]))")],
        ),
        (
            "Campaigns: of the budget spent",
            "percentunit",
            [("{{campaign}}", f"max by (campaign) ({_OPERATOR}campaign_spent / {_OPERATOR}campaign_budget)")],
        ),
        (
            "Experiments: people",
            "short",
            [("{{experiment}} {{arm}}", f"max by (experiment, arm) ({_OPERATOR}experiment_arm_people)")],
        ),
        (
            "Experiments: above the control, and at least and at most",
            _SIGNED,
            [
                (
                    "{{experiment}} {{arm}} " + said,
                    f"max by (experiment, arm) ({_OPERATOR}experiment_arm_{said}) / 1000000",
                )
                for said in ("difference", "low", "high")
            ],
        ),
        (
            "Trends: actions of the newest hour",
            "short",
            [("{{kind}} {{id}}", "max by (kind, id) (headrace_trend_actions)")],
        ),
        (
            "Funnels of the newest day",
            "short",
            [("{{category}} {{step}}", "max by (category, step) (headrace_funnel)")],
        ),
        ("People by segment", "short", [("{{segment}}", "max by (segment) (headrace_people)")]),
        (
            "People who came to be of a segment",
            "ops",
            [("{{segment}}", f"sum by (segment) (rate({_OPERATOR}segment_changes[5m]))")],
        ),
        (
            "Interests that changed, carts that were left",
            "ops",
            [
                ("drifts", f"sum(rate({_OPERATOR}drifts[5m]))"),
                ("abandoned carts", f"sum(rate({_OPERATOR}abandoned_carts[5m]))"),
            ],
        ),
    ],
}
"""The same of the jobs that a shop may run beside the main one."""


def build() -> str:
    """The dashboard as JSON."""
    built = (
        dashboard.Dashboard("Headrace")
        .uid("headrace")
        .tags(["headrace"])
        .refresh("5s")
        .time("now-15m", "now")
        .readonly()
    )
    source = DataSourceRef(type_val="prometheus", uid="prometheus")
    ids = count(1)
    for row, panels in {**ROWS, **OTHER_JOBS}.items():
        built = built.with_row(dashboard.Row(row).id(next(ids)))
        for title, unit, lines in panels:
            legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).show_legend(True)
            panel = (
                timeseries.Panel()
                .id(next(ids))
                .title(title)
                .unit(unit)
                .datasource(source)
                .height(7)
                .span(8)
                .legend(legend.placement(LegendPlacement.BOTTOM))
            )
            if unit != _SIGNED:
                panel = panel.min(0)
            for number, (name, query) in enumerate(lines):
                target = prometheus.Dataquery().expr(query).legend_format(name).ref_id(chr(ord("A") + number))
                panel = panel.with_target(target.datasource(source))
            built = built.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


if __name__ == "__main__":
    FILE.write_text(build())
