"""The arrows of the design: schema <- model <- operators <- jobs, and what the lower layers must not know."""

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parents[2]
OURS = {"config", "serving", "schema", "model", "operators", "jobs", "cli", "bench", "deploy", "tests"}
MAY_IMPORT = {
    "schema": {"schema"},
    "config": {"schema", "config"},
    "model": {"schema", "model"},
    "operators": {"schema", "model", "operators"},
    "jobs": {"config", "schema", "model", "operators", "jobs"},
    "serving": {"config", "schema", "serving"},
}


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_arrows_between_packages_run_one_way(package: str) -> None:
    files = list((ROOT / package).glob("*.py"))
    assert files
    for file in files:
        assert imported(file) & OURS <= MAY_IMPORT[package], file


@pytest.mark.parametrize("package", ["schema", "model"])
def test_schema_and_model_know_neither_flink_nor_kafka(package: str) -> None:
    for file in (ROOT / package).glob("*.py"):
        assert not imported(file) & {"pyflink", "kafka"}, file
