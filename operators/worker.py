"""What every Python worker process of the job sets once.

Imported before the models: a worker of Flink puts a method of its own in place of `print`, and numba, which looks every
built-in up in the module that it says it is from, fails to import there. Naming the method in that module lets the
look-up succeed.

`schema`, `model`, `operators` and `jobs` have no `__init__.py`, on purpose: a TaskManager's interpreter outlives the
folder that a job's sources came in, and only a namespace package is then looked for in the folder that came after it.
"""

import builtins
import gc
import sys

import torch

_worker = sys.modules.get(getattr(builtins.print, "__module__", None) or "")
if _worker is not None and not hasattr(_worker, "print"):
    _worker.print = builtins.print  # type: ignore[attr-defined]


def prepare_worker() -> None:
    """One torch thread, as Flink's subtasks share the cores; and no search for garbage in what was imported, nor one
    after every few hundred decoded snapshots, which hold no cycles."""
    torch.set_num_threads(1)
    gc.freeze()
    gc.set_threshold(100_000)
