"""Programs of other projects that a test needs and a machine may lack."""

import os
import shutil

import pytest


def program(*names: str) -> str:
    """The path of the first of these programs that the machine has. Without any the test is left out, but in CI, which
    installs them, it fails."""
    for name in names:
        if (found := shutil.which(name)) is not None:
            return found
    if os.environ.get("HEADRACE_TEST_ALL"):
        pytest.fail(f"This machine has none of {', '.join(names)}.")
    pytest.skip(f"This machine has none of {', '.join(names)}.")
