"""Where the parts that a GPU has in another way than a CPU are tested."""

import pytest
import torch

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"), id="a GPU"
    ),
]
