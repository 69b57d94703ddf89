"""Does a map say what the network uses? Deletion, insertion, energy in the lesions, and the map of shuffled weights."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from skimage.metrics import structural_similarity
from torch import Tensor

from lemlight.localization.attribution import maps_by
from lemlight.localization.choice import RegionSettings
from lemlight.localization.evaluation import Localizing, in_turn
from lemlight.localization.regions import smoothed
from lemlight.metrics.bootstrap import bootstrap, estimate, ratio
from lemlight.models.classifier import MammogramClassifier

STEPS = 16  # of the breast's pixels, from none to all
TISSUE = 1 / 16  # of the image's height: standard deviation of the Gaussian that stands in for what is taken out [open]
SEED = 0  # of the draw of images, of the order of equal pixels, and of the shuffled weights

RULES = {
    "deletion": "the breast's pixels are replaced by blurred tissue, the map's strongest first, in 16 equal steps: "
    "mean probability of what was predicted over the steps, by trapezoids (Petsiuk et al., BMVC 2018)",
    "insertion": "the same from the blurred breast on, its pixels coming back, the strongest first",
    "energy": "fraction of the map's sum that lies in lesions (Wang et al., CVPR workshop 2020); a map of zeros: 0",
    "shuffled_correlation": "Spearman's correlation, inside the breast, of the map with that of the same network whose "
    "weights are shuffled within each of its tensors (Adebayo et al., NeurIPS 2018); without any spread: 0",
    "shuffled_ssim": "structural similarity of the same two maps, their highest values 1",
}


def measure_faithfulness(
    place: Localizing, name: str, settings: RegionSettings, image_ids: Sequence[str], resamples: int
) -> dict[str, Any]:
    """Measure a method on up to `place.settings.faithfulness` of the images, each figure with its interval.

    The images are drawn, the same for every method. Every process of a training must call it and gets the result.
    """
    number = min(place.settings.faithfulness, len(image_ids))
    drawn = np.random.default_rng(SEED).permutation(sorted(image_ids))[:number]
    shuffled = shuffled_copy(place.classifier)
    work = partial(_of_image, place, name, settings, shuffled)
    rows = list(in_turn(work, [str(image_id) for image_id in drawn]))
    patients = place.table.set_index("image_id").loc[list(drawn), "patient_id"].to_numpy(dtype=np.str_)
    values = {key: np.array([row[key] for row in rows], dtype=np.float64) for key in RULES}

    def means(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {
            key: ratio(weights @ np.nan_to_num(value), weights @ np.isfinite(value).astype(np.float64))
            for key, value in values.items()
        }

    found: dict[str, Any] = {"images": number, "patients": len(set(patients)), "rules": RULES}
    draws = bootstrap(means, patients, resamples=resamples, seed=SEED) if number else {}
    whole = means(np.ones((1, number)))
    for key in RULES:
        counted = len(set(patients[np.isfinite(values[key])]))
        draw = draws.get(key, np.zeros(0))
        found[key] = estimate(float(whole[key][0]), draw, counted, "no image with a lesion").to_dict()
    return found


def shuffled_copy(classifier: MammogramClassifier) -> MammogramClassifier:
    """Copy a network with the values of each of its parameters in another order: as many, as large, no sense."""
    other = copy.deepcopy(classifier)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for weight in other.parameters():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view(weight.shape))
    return other


def local_tissue(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The breast of an image (H, W), where it is above 0, blurred without the air around it; air stays 0."""
    inside, sigma = (image > 0).astype(np.float32), TISSUE * image.shape[0]
    sums, weights = (cv2.GaussianBlur(one, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for one in (image, inside))
    return np.asarray(inside * sums / np.maximum(weights, 1e-6), dtype=np.float32)


def order_of(strength: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rank (H, W), from 0, of each pixel inside by falling strength, equal ones in random order; outside: -1."""
    places = np.flatnonzero(inside)
    chance = np.random.default_rng(SEED).permutation(places.size)
    order = np.lexsort((chance, -strength.ravel()[places].astype(np.float64)))
    ranks = np.full(strength.size, -1, dtype=np.int64)
    ranks[places[order]] = np.arange(places.size)
    return ranks.reshape(strength.shape)


def replaced(
    image: NDArray[np.float32], strength: NDArray[np.float32], steps: int = STEPS
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The images (steps + 1, H, W) of deletion and of insertion, from nothing done to everything."""
    inside, tissue = image > 0, local_tissue(image)
    ranks = order_of(strength, inside)
    counts = np.rint(np.linspace(0, inside.sum(), steps + 1)).astype(np.int64)
    taken = (ranks >= 0) & (ranks < counts[:, None, None])
    return np.where(taken, tissue, image), np.where(taken, image, tissue)


def _of_image(
    place: Localizing, name: str, settings: RegionSettings, shuffled: MammogramClassifier, image_id: str
) -> dict[str, float]:
    pixels, image = place.images([image_id]), place.images([image_id])[0, 0].cpu().numpy()
    probability = _probability(place, pixels)
    malignant = probability > place.threshold
    follow, keep = place.settings.follow, settings.keep
    strengths = []
    for network in (place.classifier, shuffled):  # both explain what the network itself predicted
        maps = maps_by(place.settings.methods[name], network, pixels, malignant, follow, keep)
        strengths.append(smoothed(maps[0].cpu().numpy(), settings.smoothing))
    series = [torch.from_numpy(images[:, None]) for images in replaced(image, strengths[0])]
    curves = [_probability(place, images.to(place.device)) for images in series]
    said = [float(np.trapezoid((one if malignant else 1 - one).cpu().numpy(), dx=1 / STEPS)) for one in curves]
    lesions = place.lesions(image_id)
    total, known = float(strengths[0].sum(dtype=np.float64)), lesions is not None and bool(np.any(lesions))
    in_lesions = float(strengths[0][lesions > 0].sum(dtype=np.float64)) if known and lesions is not None else np.nan
    return {
        "deletion": said[0],
        "insertion": said[1],
        "energy": in_lesions / total if total else in_lesions,
        "shuffled_correlation": _correlation(*(one[image > 0] for one in strengths)),
        "shuffled_ssim": float(structural_similarity(*strengths, data_range=1.0)),  # type: ignore[no-untyped-call]
    }


@torch.no_grad()
def _probability(place: Localizing, images: Tensor) -> Tensor:
    size = place.batch_size
    parts = [place.classifier(images[start : start + size]).logit for start in range(0, len(images), size)]
    logit: Tensor = torch.cat(parts)
    return logit.double().sigmoid()


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    ranks = [rankdata(values) for values in (one, other)]
    if any(np.ptp(values) == 0 for values in ranks):
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])
