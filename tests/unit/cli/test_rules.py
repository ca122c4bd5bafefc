"""A file of rules: read as messages, or refused with every fault of every rule."""

import json
from pathlib import Path

import pytest

from cli.rules import read_rules
from deploy.local.stack import StackError

pytestmark = pytest.mark.unit


def test_tables_become_messages(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(
        """
        [rules.summer]
        action = "boost"
        amount = 0.5
        items = "'sandals' in item.category"
        from = 2026-06-01T00:00:00Z
        [rules."no knives"]
        action = "filter"
        item_ids = ["k1"]
        """
    )
    messages = {rule_id: json.loads(message) for rule_id, message in read_rules(file).items()}
    assert messages["no knives"] == {"rule_id": "no knives", "action": "filter", "item_ids": ["k1"]}
    assert messages["summer"]["from"] == "2026-06-01T00:00:00Z"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[rules.a]\naction = "pin"\n[rules.b]\naction = "filter"\nx = 1',
            ["2 faulty", "a: ", "pin needs", "b: ", "x = 1"],
        ),
        ("rules = 1", ["must hold a table"]),
        ("", ["must hold a table"]),
        ('[rule.a]\naction = "filter"', ["holds rule beside"]),
        ("rules.a = 1", ["a: "]),
        ("[rules", ["no TOML"]),
    ],
)
def test_every_fault_is_said(text: str, said: list[str], tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(StackError) as refused:
        read_rules(file)
    assert [word for word in said if word not in str(refused.value)] == []
