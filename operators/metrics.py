"""What the operators tell Prometheus: names after `flink_taskmanager_job_task_operator_headrace_`."""

from typing import NamedTuple


class Metric(NamedTuple):
    """A metric: the operators that have it, gauge or counter, and what it says."""

    operators: tuple[str, ...]
    kind: str
    says: str


METRICS = {
    "events_accepted": Metric(("profile",), "gauge", "Events taken into profiles since the operator's start"),
    "events_late": Metric(("profile",), "gauge", "Of those, how many came too late to teach"),
    "events_duplicate": Metric(("profile",), "gauge", "Events whose id was taken before"),
    "events_session_only": Metric(("profile",), "gauge", "Events without consent, which serve their session alone"),
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
    "actions_taken": Metric(("actions",), "gauge", "Events that the job of behaviour has taken since its start"),
    "actions_refused": Metric(
        ("actions",), "gauge", "Events that it could not read, as the main job's dead letters say"
    ),
    "sample_ratio_mismatches": Metric(("experiment_results",), "gauge", "Experiments whose arms have the wrong sizes"),
    "offers": Metric(("offers",), "counter", "Offers made"),
    "campaign_spent": Metric(("offers",), "gauge", "What the campaign that was asked last has spent"),
}
