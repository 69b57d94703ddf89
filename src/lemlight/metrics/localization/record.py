"""What is kept of one image: counts and scores, never a map."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lemlight.metrics.localization.boxes import BOX_CUTOFFS, OVERLAPS, box_hits
from lemlight.metrics.localization.cutoffs import predicted
from lemlight.metrics.localization.hits import Candidates, find_candidates, near_lesions, pointing


@dataclass(frozen=True)
class ImageRecord:
    """One measured image; `types` and `candidates.lesion_scores` name the same lesions, those that are drawn."""

    image_id: str
    patient_id: str
    confidence: float
    types: tuple[str, ...]
    lesion_pixels: int
    predicted_pixels: int
    shared_pixels: int
    candidates: Candidates
    pointing: float
    """Share of the highest points in a lesion, NaN without a lesion."""
    box_hits: NDArray[np.bool_]
    """(3, 20), False without a lesion."""

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Which of the lesions are hit, (K,)."""
        return ~np.isnan(self.candidates.lesion_scores)

    @property
    def dsc(self) -> float:
        """Dice coefficient of prediction and lesions, NaN without a lesion."""
        if not self.lesion_pixels:
            return float("nan")
        return 2 * self.shared_pixels / (self.lesion_pixels + self.predicted_pixels)


def measure(
    lesions: NDArray[np.uint8],
    strength: NDArray[np.float32],
    *,
    image_id: str,
    patient_id: str,
    types: Sequence[str],
    confidence: float,
    tolerance_px: float,
    cutoff: float,
) -> ImageRecord:
    """Return the record of one image with lesions (H, W) and strength (H, W), both checked."""
    mask = predicted(strength, cutoff)
    near = near_lesions(lesions, tolerance_px)
    return ImageRecord(
        image_id=image_id,
        patient_id=patient_id,
        confidence=confidence,
        types=tuple(types[lesion.label - 1] for lesion in near),
        lesion_pixels=int(np.count_nonzero(lesions)),
        predicted_pixels=int(np.count_nonzero(mask)),
        shared_pixels=int(np.count_nonzero(mask & (lesions > 0))),
        candidates=find_candidates(strength, cutoff, confidence, near),
        pointing=pointing(strength, near) if near else float("nan"),
        box_hits=box_hits(lesions, strength) if near else np.zeros((len(OVERLAPS), len(BOX_CUTOFFS)), dtype=np.bool_),
    )
