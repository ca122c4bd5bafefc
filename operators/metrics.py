"""What the operators tell Prometheus: names after `flink_taskmanager_job_task_operator_headrace_`.

In thread mode a gauge is a PyFlink distribution, whose newest value Java holds: PyFlink's own gauges call Python from
the thread of the reporter, which has ended TaskManagers by SIGSEGV.
"""

from typing import NamedTuple


class Metric(NamedTuple):
    """A metric: the operators that have it, gauge or counter, and what it says."""

    operators: tuple[str, ...]
    kind: str
    says: str


METRICS = {
    "events_accepted": Metric(("profile",), "counter", "Events taken into profiles since the operator's start"),
    "events_late": Metric(("profile",), "counter", "Of those, how many came too late to teach"),
    "events_duplicate": Metric(("profile",), "counter", "Events whose id was taken before"),
    "events_session_only": Metric(("profile",), "counter", "Events without consent, which serve their session alone"),
    "code_dead_letters": Metric(("profile", "learner", "scorer"), "counter", "Dead letters by `code`"),
    "interactions_learned": Metric(("learner",), "counter", "Snapshots that the model has learned from"),
    "learner_ms": Metric(("learner",), "gauge", "Milliseconds that learning the newest batch took"),
    "model_version": Metric(("learner", "scorer"), "gauge", "Events and catalogue changes that the model has taken"),
    "items_encoded": Metric(("item_encoder",), "counter", "Embeddings that were made of texts and images"),
    "encoder_failures": Metric(("item_encoder",), "gauge", "Embeddings that could not be made"),
    "sequence_updates": Metric(("learner",), "gauge", "Updates of the sequence model's network since it began"),
    "sequence_failures": Metric(("learner", "scorer"), "gauge", "How often the sequence model failed and was left out"),
    "lists_without_sequence": Metric(
        ("scorer",), "counter", "Lists that were late, so made without the sequence model"
    ),
    "people_waiting": Metric(("scorer",), "gauge", "People who wait for a list"),
    "lists_sent": Metric(("scorer",), "counter", "Lists sent"),
    "batch_size": Metric(("scorer",), "gauge", "People of the newest lists, which are made together"),
    "scorer_ms": Metric(("scorer",), "gauge", "Milliseconds that these lists took"),
    "freshness_ms": Metric(
        ("scorer",), "gauge", "Milliseconds from the first event that one of these people waited for to the lists"
    ),
    "replica_lag_ms": Metric(("scorer",), "gauge", "Milliseconds from the making of the newest delta to its use"),
    "prequential_hit": Metric(
        ("scorer",), "gauge", "Moving share of events whose item stood in the list that the person had, in millionths"
    ),
    "prequential_ndcg": Metric(
        ("scorer",), "gauge", "The same as normalised discounted cumulative gain, in millionths"
    ),
    "rules": Metric(("learner",), "gauge", "Rules that the shop has"),
    "review_waiting": Metric(("learner",), "gauge", "Items that wait for a decision"),
    "items_forbidden": Metric(("learner",), "gauge", "Items that may be on nobody's list"),
    "actions_taken": Metric(("actions",), "counter", "Events that the job of behaviour has taken since its start"),
    "actions_refused": Metric(
        ("actions",), "counter", "Events that it could not read, as the main job's dead letters say"
    ),
    "segment_changes": Metric(("behaviour",), "counter", "People who came to be of a `segment`"),
    "drifts": Metric(("behaviour",), "counter", "People whose interests have changed"),
    "abandoned_carts": Metric(("behaviour",), "counter", "Carts that were left"),
    "experiment_arm_people": Metric(
        ("experiment_results",),
        "gauge",
        "People of an `arm` of an `experiment`, since the operator's start",
    ),
    "experiment_arm_difference": Metric(
        ("experiment_results",), "gauge", "By how much the arm's mean is above the control's, in millionths"
    ),
    "experiment_arm_low": Metric(("experiment_results",), "gauge", "The least that it may be, in millionths"),
    "experiment_arm_high": Metric(("experiment_results",), "gauge", "The most that it may be, in millionths"),
    "sample_ratio_mismatches": Metric(("experiment_results",), "gauge", "Experiments whose arms have the wrong sizes"),
    "offers": Metric(("offers",), "counter", "Offers made"),
    "campaign_spent": Metric(("offers",), "gauge", "What a `campaign` has spent, since the operator's start"),
    "campaign_budget": Metric(("offers",), "gauge", "What it may spend"),
}
