"""Where tensors are, and whose code reads them there."""

import torch


def pick_device(name: str) -> torch.device:
    """The named torch device; `auto` is a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else torch.device(name)


def read_by_numba(device: torch.device) -> bool:
    """Whether a scorer reads its tensors with the loops that numba compiles, as on a CPU, or with torch's operations,
    as on a GPU. Both give the same; tests let a CPU take the GPU's way."""
    return device.type == "cpu"
