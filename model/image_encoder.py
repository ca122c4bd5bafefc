"""Images as vectors, by a network that was trained for it.

Any encoder of timm (Wightman, "PyTorch Image Models", 2019), which also has those of torchvision, with weights from a
file; nothing is fetched. Its features before the classifier are the vector, as in Donahue et al., "DeCAF: A deep
convolutional activation feature for generic visual recognition", ICML 2014.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from model.batch import Weights

_ASPECT, _AT_ONCE = 20, 32


class ImageEncoder:
    """The encoder of this `name` with the `weights` of a file that timm reads, on a GPU where there is one. Raises
    ValueError where the file's weights are not its own; a classifier in it is left out."""

    def __init__(self, name: str, weights: Path) -> None:
        # Takes seconds, which only who encodes is to spend.
        import timm
        from timm.data import create_transform, resolve_data_config
        from timm.models import load_checkpoint

        model = timm.create_model(name, pretrained=False, num_classes=0)
        try:
            missing, unknown = load_checkpoint(model, str(weights), strict=False)
        except RuntimeError as error:
            raise ValueError(f"{weights} are no weights of {name}: {error}") from error
        classifiers = timm.get_pretrained_cfg_value(name, "classifier") or ""
        heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
        if strange := [*missing, *(key for key in unknown if not key.startswith(heads))]:
            raise ValueError(f"{weights} are no weights of {name}: it differs in {', '.join(sorted(strange)[:5])}")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().to(self._device)
        self._transform = create_transform(**resolve_data_config({}, model=model), is_training=False)

    def encode(self, images: Sequence[bytes]) -> list[Weights | None]:
        """Of each image, in any format that Pillow reads, a vector at length 1, float32 [dimensions of the encoder];
        None for what is no image, or one larger than Pillow thinks safe."""
        return [vector for n in range(0, len(images), _AT_ONCE) for vector in self._encoded(images[n : n + _AT_ONCE])]

    def _encoded(self, images: Sequence[bytes]) -> list[Weights | None]:
        pixels = [self._read(image) for image in images]
        found: list[Weights | None] = [None] * len(images)
        there = [n for n, read in enumerate(pixels) if read is not None]
        if there:
            batch = torch.stack([read for read in pixels if read is not None]).to(self._device)
            with torch.inference_mode():
                vectors = torch.nn.functional.normalize(self._model(batch)).cpu().numpy()
            for n, vector in zip(there, vectors, strict=True):
                found[n] = vector
        return found

    def _read(self, image: bytes) -> torch.Tensor | None:
        from PIL import Image

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                opened = Image.open(io.BytesIO(image))
                if max(opened.size) > _ASPECT * min(opened.size):
                    # The shorter side is brought to the encoder's size: the longer one would fill the memory.
                    return None
                read: torch.Tensor = self._transform(opened.convert("RGB"))
        except Exception:
            # Decoders fail in many ways on what is no image of theirs.
            return None
        return read


def image_dimensions(name: str) -> int:
    """How many numbers a vector of the encoder has. Raises ValueError where timm is not installed or has none of that
    name."""
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"timm is not installed: {error}") from error
    if not timm.is_model(name):
        raise ValueError(f"timm has no encoder {name}")
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0)
    sizes = (getattr(model, name, None) for name in ("head_hidden_size", "num_features"))
    return next(size for size in sizes if isinstance(size, int))
