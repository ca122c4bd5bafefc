"""MovieLens-100k as events and items, from files in the original's form."""

from pathlib import Path

import pytest

from cli import movielens
from cli.evaluate import read_items

pytestmark = pytest.mark.unit


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "datasets" / "ml-100k"
    folder.mkdir(parents=True)
    (folder / "ml-100k.inter").write_text("head\n9\t1\t3\t900\n8\t2\t5\t800\n10\t1\t1\t900\n")
    (folder / "ml-100k.item").write_text(
        "head\n1\tToy Story\t1995\tAnimation Children's\n267\tunkonwn\tunkonwn\tunknown\n"
    )
    (folder / "ml-100k.user").write_text("head\n8\t24\tM\ttechnician\t85711\n9\t53\tF\tother\t94043\n")
    return tmp_path


def test_events_come_in_time_order_and_ties_keep_the_files_order(data: Path) -> None:
    found = list(movielens.events(data))
    assert [event["event_id"] for event in found] == ["ml-2", "ml-1", "ml-3"]
    assert found[0] == {
        "event_id": "ml-2",
        "user_id": "8",
        "item_id": "2",
        "event_type": "rating",
        "timestamp": 800_000,
        "value": 5.0,
    }


def test_items_leave_out_what_is_not_known(data: Path) -> None:
    assert list(movielens.items(data)) == [
        {
            "item_id": "1",
            "title": "Toy Story",
            "category": ["Animation", "Children's"],
            "created_at": "1995-01-01T00:00:00Z",
        },
        {"item_id": "267", "title": "unkonwn"},
    ]


def test_people_are_known_by_gender_and_roughly_by_age(data: Path) -> None:
    assert movielens.people(data) == {"8": {"age": "20", "gender": "M"}, "9": {"age": "50", "gender": "F"}}


def test_the_csv_is_what_evaluate_reads(data: Path) -> None:
    lines = movielens.write_csv(data).read_text().splitlines()
    assert lines[:2] == ["user_id,item_id,event_type,timestamp,value", "8,2,rating,800000,5.0"]
    assert len(lines) == 4
    assert list(read_items(movielens.write_items(data))) == ["1", "267"]
