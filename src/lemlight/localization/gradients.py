"""Gradients of the logit with respect to the image, one value per pixel.

Both take a classifier in eval mode with gradients enabled, images `(N, 1, H, W)` in [0, 1] and the signs `(N,)` of the
logits. They return `(N, H, W)` >= 0 in logit units per unit of grey; the sign changes nothing in an absolute value.
"""

import torch
from torch import Tensor

from lemlight.errors import LemlightError
from lemlight.models.classifier import MammogramClassifier

NOISE = 0.15  # the middle of the 10 to 20 % that the paper recommends
COPIES = 25  # [open]; the paper sees little gain above 50


def gradient(classifier: MammogramClassifier, images: Tensor, signs: Tensor) -> Tensor:
    """Compute `|dy/dx|` (Simonyan, Vedaldi, Zisserman, ICLR workshop 2014, section 3.1)."""
    return _image_gradients(classifier, images, signs).abs()


def smooth_grad(
    classifier: MammogramClassifier,
    images: Tensor,
    signs: Tensor,
    *,
    seed: int = 0,
    noise: float = NOISE,
    copies: int = COPIES,
) -> Tensor:
    """Compute SmoothGrad: the mean gradient over noisy copies of an image, then its absolute value.

    Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017, section 2.

    Args:
        classifier: in eval mode.
        images: as they are; the noisy copies may leave [0, 1], as in the paper.
        signs: +1 or -1 per image.
        seed: of the noise. It comes from its own generator and is the same for every image and on every device, so
            that a map depends neither on the rest of the batch nor on what else drew random numbers.
        noise: standard deviation as a share of the image's range, max - min, at least 0.
        copies: how many, at least 1.

    Raises:
        LemlightError: noise or copies out of range.
    """
    if not noise >= 0 or copies < 1:
        raise LemlightError(f"smooth_grad: noise must be at least 0 and copies at least 1, got {noise} and {copies}")
    generator = torch.Generator().manual_seed(seed)
    spread = noise * (images.amax(dim=(1, 2, 3), keepdim=True) - images.amin(dim=(1, 2, 3), keepdim=True))
    total = torch.zeros_like(images[:, 0])
    for _ in range(copies):
        field = torch.randn(images.shape[1:], generator=generator).to(images)
        total += _image_gradients(classifier, images + spread * field, signs)
    return (total / copies).abs()


def _image_gradients(classifier: MammogramClassifier, images: Tensor, signs: Tensor) -> Tensor:
    """The gradient of the signed logit with respect to the image: `(N, H, W)`."""
    # clone: a tensor made in a caller's inference mode can have no gradient
    images = images.detach().clone().requires_grad_()
    # images do not see one another in eval mode: the gradient of the sum is that of each image
    (gradients,) = torch.autograd.grad((signs * classifier(images).logit).sum(), images)
    return gradients[:, 0]
