"""An exported network that was opened, whatever its format."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lemlight.errors import LemlightError

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


def is_exported(path: Path) -> bool:
    """Whether the name of a file says that it is an exported network, not a checkpoint."""
    return path.suffix.lower() in SUFFIXES.values()


@dataclass(frozen=True)
class ExportedNetwork:
    """An exported network on the CPU.

    path: the file.
    card: plain values that nothing has acted upon.
    run: images `(N, 1, H, W)` float32 -> probability and score map, unchecked; it may raise anything.
    """

    path: Path
    card: dict[str, Any]
    run: Callable[[Tensor], tuple[Tensor, Tensor]]

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict images `(N, 1, H, W)` in [0, 1]: probability `(N,)` and score map `(N, h, w)` in logits, float32.

        Raises:
            LemlightError: the network fails, or its answer is none: it may come from a stranger.
        """
        try:
            with torch.no_grad():
                probability, score_map = self.run(images.float())
        except Exception as error:  # runtimes have errors of their own, and a graph can fail in any way
            raise LemlightError(
                f"{self.path} fails on images of {images.shape[2]} x {images.shape[3]} px: export the checkpoint again"
            ) from error
        right = (
            probability.shape == images.shape[:1]
            and score_map.ndim == 3
            and len(score_map) == len(images)
            and score_map.numel() > 0
            and bool(torch.isfinite(score_map).all())
            and bool(((probability >= 0) & (probability <= 1)).all())
        )
        if not right:
            raise LemlightError(
                f"{self.path} answers with something other than probabilities and score maps: "
                "give a file that lemlight.export wrote"
            )
        return probability.float(), score_map.float()
