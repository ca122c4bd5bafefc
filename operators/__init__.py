"""Thin Flink adapters around `model/`.

A Python worker of Flink puts a method of its own in place of `print`, and numba, which looks every built-in up in the
module that it says it is from, fails to import there. Naming the method in that module lets the look-up succeed.
"""

import builtins
import sys

_worker = sys.modules.get(getattr(builtins.print, "__module__", None) or "")
if _worker is not None and not hasattr(_worker, "print"):
    _worker.print = builtins.print  # type: ignore[attr-defined]
