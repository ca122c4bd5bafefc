"""What is done with the one stack that tests share."""

import contextlib
import shutil
import time

from kafka import KafkaAdminClient

from deploy.local.stack import Stack, StackError


def empty(stack: Stack) -> None:
    """End the stack's jobs and serving, and remove its topics."""
    stack.stop_serving()
    shutil.rmtree(stack.data / "serving", ignore_errors=True)
    stack.ensure()
    for job in stack.running_jobs():
        # It may end by itself just now.
        with contextlib.suppress(StackError):
            stack.cancel(job)
    admin, deadline = KafkaAdminClient(bootstrap_servers=stack.bootstrap_servers), time.monotonic() + 60
    try:
        if left := _topics(admin):
            admin.delete_topics(left)
        # The broker tells of a topic for a moment after it is deleted, and who makes topics believes it.
        while left := _topics(admin):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
    finally:
        admin.close()


def _topics(admin: KafkaAdminClient) -> list[str]:
    return [topic for topic in admin.list_topics() if not topic.startswith("__")]
