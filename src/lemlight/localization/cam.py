"""Class activation maps: weighted sums of the backbone's last feature map, one value per cell.

All take a classifier in eval mode with gradients enabled, images `(N, 1, H, W)` in [0, 1] and the signs `(N,)`: +1
explains the logit of an image, -1 its negative. They return `(N, h, w)` >= 0 on the cells of the feature map.
"""

import torch
from torch import Tensor
from torch.nn import functional

from lemlight.models.classifier import MammogramClassifier


def cam(classifier: MammogramClassifier, images: Tensor, signs: Tensor) -> Tensor:
    """Compute CAM, the positive part of the score map (Zhou et al., CVPR 2016, Eq. 2), in logit units.

    The scorer's bias stays in it [reading]: a score of 0 then is a probability of 0.5.
    """
    with torch.no_grad():
        score_map: Tensor = classifier.scorer(classifier.backbone(images))
    return cam_of_scores(score_map, signs)


def cam_of_scores(score_map: Tensor, signs: Tensor) -> Tensor:
    """CAM of a score map `(N, h, w)` that is there already."""
    return functional.relu(signs.view(-1, 1, 1) * score_map)


def grad_cam(classifier: MammogramClassifier, images: Tensor, signs: Tensor) -> Tensor:
    """Compute Grad-CAM, `relu(sum_c a_c A_c)` with `a_c = mean_ij dy/dA_cij` (Selvaraju et al., ICCV 2017, Eq. 1-2).

    With GAP this is CAM without the bias, divided by the number of cells. A pooling method that picks cells has no
    gradient on the others.
    """
    features, gradients = _features_and_gradients(classifier, images, signs)
    return _weighted_sum(gradients.mean(dim=(2, 3)), features)


def grad_cam_pp(classifier: MammogramClassifier, images: Tensor, signs: Tensor) -> Tensor:
    """Compute Grad-CAM++ (Chattopadhay et al., WACV 2018, Eq. 5, 7 and 19), with `Y = exp(y)` as there.

    The weight of a channel is `w_c = sum_ij alpha_cij relu(dY/dA_cij)`. By Eq. 19 and with g = dy/dA the powers of g
    cancel out: `alpha = g^2 / (2 g^2 + g^3 sum_ab A_cab) = 1 / (2 + g sum_ab A_cab)`. Only g > 0 counts and features
    are never negative, so that nothing is divided by 0. The factor exp(y), one per image, is left out: it would
    overflow, and it made maps of different images incomparable.
    """
    features, gradients = _features_and_gradients(classifier, images, signs)
    positive = functional.relu(gradients)
    alpha = 1 / (2 + positive * features.sum(dim=(2, 3), keepdim=True))
    return _weighted_sum((alpha * positive).sum(dim=(2, 3)), features)


def _features_and_gradients(classifier: MammogramClassifier, images: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """Features `(N, C, h, w)` and the gradient of the signed logit with respect to them."""
    with torch.no_grad():
        features: Tensor = classifier.backbone(images)
    features.requires_grad_()
    logit = classifier.pooling(classifier.scorer(features), features, classifier.scorer)
    # images do not see one another in eval mode: the gradient of the sum is that of each image
    (gradients,) = torch.autograd.grad((signs * logit).sum(), features)
    return features.detach(), gradients


def _weighted_sum(weights: Tensor, features: Tensor) -> Tensor:
    """`relu(sum_c w_c A_c)` of weights `(N, C)` and features `(N, C, h, w)`."""
    return functional.relu(torch.einsum("nc,nchw->nhw", weights, features))
