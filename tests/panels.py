"""Which metrics the dashboard's panels ask of each job that a shop may run beside the main one, and of serving, which
reads what they say."""

MEASURED = {
    "behaviour": {"actions_taken", "actions_refused", "segment_changes", "drifts", "abandoned_carts"},
    "experiments": {
        "sample_ratio_mismatches",
        *(f"experiment_arm_{said}" for said in ("people", "difference", "low", "high")),
    },
    "serving": {"trend_actions", "funnel", "people"},
    "marketing": {"offers", "campaign_spent", "campaign_budget"},
}
