"""Localization metrics of one split, image by image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lemlight.errors import LemlightError
from lemlight.metrics.localization.checks import check_call, check_cutoff, check_maps
from lemlight.metrics.localization.pxap import strength_histogram
from lemlight.metrics.localization.record import ImageRecord, measure
from lemlight.metrics.localization.summary import summarize_localization

COLUMNS = (
    "image_id", "patient_id", "confidence", "lesions", "hit_lesions", "regions_outside",
    "lesion_pixels", "predicted_pixels", "shared_pixels", "dsc", "pointing",
)  # fmt: skip


class LocalizationMeter:
    """Compares location maps with lesions; keeps counts per image and a histogram per patient, never a map.

    Args:
        cutoff: in [0, 1]: the prediction is where the strength is at least this, and above 0 (compared in float32).

    Raises:
        LemlightError: the cutoff lies outside [0, 1].
    """

    def __init__(self, cutoff: float) -> None:
        self._cutoff = check_cutoff(cutoff)
        self._records: dict[str, ImageRecord] = {}
        self._histograms: dict[str, NDArray[np.int64]] = {}
        self._tolerances: set[float] = set()

    def update(
        self,
        *,
        image_id: str,
        patient_id: str,
        lesions: ArrayLike,
        types: Sequence[str],
        strength: ArrayLike,
        confidence: float,
        tolerance_px: float,
    ) -> None:
        """Add one image whose lesions are known; one of which nothing is known must not be added.

        Args:
            image_id: of the image, given once.
            patient_id: of its patient; intervals are drawn over patients.
            lesions: labels (H, W) of an integer type, 0 none, k the k-th lesion; all 0: known to have none.
            types: of the lesions, types[k - 1] of the k-th; "" unknown. A lesion that is not drawn is left out.
            strength: (H, W) in [0, 1], the smoothed location map, its highest value 1, or 0 everywhere.
            confidence: of the call, in [0, 1].
            tolerance_px: a lesion counts as hit within this distance of it, in px of these arrays.

        Raises:
            LemlightError: an image given twice, other shapes, values outside their range, missing types.
        """
        try:
            self._add(image_id, patient_id, lesions, types, strength, confidence, tolerance_px)
        except LemlightError as error:
            raise LemlightError(f"image {image_id}: {error}") from None

    def per_image(self) -> pd.DataFrame:
        """Return one row per image, ordered by image_id; dsc and pointing are NaN where there is no lesion.

        `regions_outside` counts predicted regions that hit no lesion; pixels are counted at the cutoff.
        """
        rows = [
            (
                record.image_id, record.patient_id, record.confidence, len(record.types), int(record.hits.sum()),
                record.candidates.false_positive_scores.size, record.lesion_pixels, record.predicted_pixels,
                record.shared_pixels, record.dsc, record.pointing,
            )
            for record in self._ordered()
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def summary(self, *, resamples: int, seed: int = 0) -> dict[str, Any]:
        """Return what metrics.json holds of the localization: each figure with its 95 % interval over patients.

        Raises:
            LemlightError: fewer resamples than a 95 % interval needs.
        """
        return {
            "cutoff": self._cutoff,
            "tolerance_px": [min(self._tolerances), max(self._tolerances)] if self._tolerances else None,
            **summarize_localization(self._ordered(), self._histograms, resamples=resamples, seed=seed),
        }

    def _ordered(self) -> list[ImageRecord]:
        return [self._records[image_id] for image_id in sorted(self._records)]

    def _add(
        self,
        image_id: str,
        patient_id: str,
        lesions: ArrayLike,
        types: Sequence[str],
        strength: ArrayLike,
        confidence: float,
        tolerance_px: float,
    ) -> None:
        if image_id in self._records:
            raise LemlightError("measured twice: drop the duplicates of the distributed sampler first")
        if not patient_id.strip():
            raise LemlightError("no patient_id: intervals are drawn over patients")
        labels, strengths = check_maps(lesions, strength)
        check_call(types, int(labels.max()), confidence, tolerance_px)
        record = measure(
            labels,
            strengths,
            image_id=image_id,
            patient_id=patient_id,
            types=types,
            confidence=float(confidence),
            tolerance_px=float(tolerance_px),
            cutoff=self._cutoff,
        )
        self._records[image_id] = record
        self._tolerances.add(float(tolerance_px))
        if record.lesion_pixels:
            histogram = strength_histogram(labels, strengths)
            self._histograms[patient_id] = self._histograms.get(patient_id, 0) + histogram
