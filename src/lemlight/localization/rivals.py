"""The maps that local extremum mapping is compared with, on the same trained network and any pooling method."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from lemlight.errors import LemlightError
from lemlight.localization.cam import cam, grad_cam, grad_cam_pp
from lemlight.localization.evaluating import evaluating
from lemlight.localization.gradients import gradient, smooth_grad
from lemlight.models.classifier import MammogramClassifier

RIVALS = ("cam", "grad_cam", "grad_cam_pp", "gradient", "smooth_grad")

CELL_MAPS = {"cam": cam, "grad_cam": grad_cam, "grad_cam_pp": grad_cam_pp}


def rival_maps(name: str, classifier: nn.Module, images: Tensor, malignant: Tensor, *, seed: int = 0) -> Tensor:
    """Explain the logits of images by a method other than local extremum mapping.

    Maps of cells are enlarged to the image bilinearly (align_corners=False). No map is scaled: images stay comparable,
    and a map without anything positive is zero. The classifier is left as it was, its mode and its gradients included,
    and so is the global random state.

    Args:
        name: one of RIVALS.
        classifier: a `MammogramClassifier` with any pooling method.
        images: `(N, 1, H, W)` in [0, 1].
        malignant: `(N,)` bool: explain the logit, else minus the logit.
        seed: of the noise of "smooth_grad"; the others have none.

    Returns:
        `(N, H, W)` float32 >= 0, the larger the more a pixel matters to what is explained.

    Raises:
        LemlightError: unknown name, or `malignant` of another shape.
    """
    if name not in RIVALS:
        raise LemlightError(f"localization method '{name}' is unknown: there are {', '.join(RIVALS)}.")
    if malignant.shape != images.shape[:1]:
        raise LemlightError(f"malignant must have shape ({len(images)},), got {tuple(malignant.shape)}")
    network = cast(MammogramClassifier, classifier)
    with evaluating(network, images.device.type):
        signs = signs_of(malignant.to(images.device)).to(images.dtype)
        if name in CELL_MAPS:
            maps = enlarged(CELL_MAPS[name](network, images, signs), (images.shape[2], images.shape[3]))
        elif name == "gradient":
            maps = gradient(network, images, signs)
        else:
            maps = smooth_grad(network, images, signs, seed=seed)
    return maps.detach().float()


def signs_of(malignant: Tensor) -> Tensor:
    """+1 for images that are called malignant, whose logit is explained, and -1 for the others: `(N,)` float32."""
    return malignant.bool().float() * 2 - 1


def enlarged(cells: Tensor, shape: tuple[int, int]) -> Tensor:
    """Maps of cells `(N, h, w)` at the size `shape` (H, W) of the image, bilinear (align_corners=False)."""
    return functional.interpolate(cells.unsqueeze(1), size=shape, mode="bilinear", align_corners=False)[:, 0]
