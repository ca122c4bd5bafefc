"""What every Python worker process of the job sets once."""

import gc

import torch


def prepare_worker() -> None:
    """One torch thread, as Flink's subtasks share the cores; and no search for garbage in what was imported, nor one
    after every few hundred decoded snapshots, which hold no cycles."""
    torch.set_num_threads(1)
    gc.freeze()
    gc.set_threshold(100_000)
