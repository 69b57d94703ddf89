"""What local extremum mapping is compared with: CAM, Grad-CAM, gradients, attention, captum, on the same network."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemlight.arguments import Count, NotNegative, NotNegativeCount, checked
from lemlight.building import did_you_mean
from lemlight.errors import LemlightError
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.ensemble import enlarged


@contextmanager
def evaluating(network: nn.Module, device_type: str) -> Iterator[None]:
    """Run the body in eval mode, in float32 and with gradients, whatever the caller runs in.

    Afterwards, also after an exception, every module is in the mode that it was in before, one by one: a network that
    is partly frozen stays so. The body takes its gradients with `torch.autograd.grad`, which leaves none in the
    parameters.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        # autocast would round the gradients; under inference mode, which Lightning predicts in, there are none
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device_type, enabled=False):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


class Baseline(ABC):
    """A localization method that explains the logit of images predicted malignant, and minus the logit of others.

    Called with a classifier, images `(N, 1, H, W)` in [0, 1] and `malignant` `(N,)` bool, it gives maps `(N, H, W)`
    float32 of at least 0, the larger the more a pixel matters to what is explained. Maps of cells are enlarged to the
    image bilinearly (align_corners=False). No map is scaled: images stay comparable, and a map without anything
    positive is zero. The classifier is left as it was, its mode and its gradients included, and so is the global random
    state.
    """

    def __call__(self, classifier: MammogramClassifier, images: Tensor, malignant: Tensor) -> Tensor:
        """Compute the maps."""
        with evaluating(classifier, images.device.type):
            signs = signs_of(malignant.to(images.device)).to(images.dtype)
            maps = self.signed_maps(classifier, images, signs)
            return enlarged(maps, (images.shape[2], images.shape[3])).detach().float()

    @abstractmethod
    def signed_maps(self, classifier: MammogramClassifier, images: Tensor, signs: Tensor) -> Tensor:
        """Explain `signs * logit`, signs `(N,)` +1 or -1: maps of cells `(N, h, w)` or of pixels `(N, H, W)`."""


class FeatureBaseline(Baseline):
    """A baseline that needs no more than the features: where these are known, no further pass of the network."""

    def of_features(
        self, classifier: MammogramClassifier, features: Tensor, images: Tensor, malignant: Tensor
    ) -> Tensor:
        """Compute the maps of images `(N, 1, H, W)` from their features `(N, C, h, w)`, which are known."""
        with evaluating(classifier, features.device.type):
            maps = self.cell_maps(classifier, features, signs_of(malignant), images)
            return enlarged(maps, (images.shape[2], images.shape[3])).detach().float()

    def signed_maps(self, classifier: MammogramClassifier, images: Tensor, signs: Tensor) -> Tensor:
        """Compute the map of cells."""
        with torch.no_grad():
            features = classifier.backbone(images)
        return self.cell_maps(classifier, features, signs, images)

    @abstractmethod
    def cell_maps(self, classifier: MammogramClassifier, features: Tensor, signs: Tensor, images: Tensor) -> Tensor:
        """Explain `signs * logit` by the features `(N, C, h, w)` of the images: maps `(N, h, w)`."""


class CAM(FeatureBaseline):
    """CAM, the positive part of the score map (Zhou et al., CVPR 2016, Eq. 2), in logit units.

    The scorer's bias stays in it [reading]: a score of 0 then is a probability of 0.5.
    """

    def cell_maps(self, classifier: MammogramClassifier, features: Tensor, signs: Tensor, images: Tensor) -> Tensor:
        """Compute the map of cells."""
        with torch.no_grad():
            return cam_of_scores(classifier.look(images, features).score_map, signs)


class Saliency(FeatureBaseline):
    """The sigmoid of the score map, in [0, 1]: the saliency map of GMIC (Shen et al., MedIA 2021, Eq. 1).

    Of what is predicted benign it is the sigmoid of minus the score [reading].
    """

    def cell_maps(self, classifier: MammogramClassifier, features: Tensor, signs: Tensor, images: Tensor) -> Tensor:
        """Compute the map of cells."""
        with torch.no_grad():
            return (signs.view(-1, 1, 1) * classifier.look(images, features).score_map).sigmoid()


class GradCAM(FeatureBaseline):
    """Grad-CAM, `relu(sum_c a_c A_c)` with `a_c = mean_ij dy/dA_cij` (Selvaraju et al., ICCV 2017, Eq. 1-2).

    With GAP this is CAM without the bias, divided by the number of cells. A pooling method that picks cells has no
    gradient on the others.
    """

    def cell_maps(self, classifier: MammogramClassifier, features: Tensor, signs: Tensor, images: Tensor) -> Tensor:
        """Compute the map of cells."""
        gradients = _feature_gradients(classifier, features, signs, images)
        return _weighted_sum(gradients.mean(dim=(2, 3)), features)


class GradCAMPlusPlus(FeatureBaseline):
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, Eq. 5, 7 and 19), with `Y = exp(y)` as there.

    The weight of a channel is `w_c = sum_ij alpha_cij relu(dY/dA_cij)`. By Eq. 19 and with g = dy/dA the powers of g
    cancel out: `alpha = g^2 / (2 g^2 + g^3 sum_ab A_cab) = 1 / (2 + g sum_ab A_cab)`. Only g > 0 counts and the sum is
    never negative, so that nothing is divided by 0. The factor exp(y), one per image, is left out: it would
    overflow, and it made maps of different images incomparable. Of features below 0, which transformers have, the sum
    counts the others alone [reading].
    """

    def cell_maps(self, classifier: MammogramClassifier, features: Tensor, signs: Tensor, images: Tensor) -> Tensor:
        """Compute the map of cells."""
        gradients = _feature_gradients(classifier, features, signs, images)
        positive = functional.relu(gradients)
        alpha = 1 / (2 + positive * functional.relu(features).sum(dim=(2, 3), keepdim=True))
        return _weighted_sum((alpha * positive).sum(dim=(2, 3)), features)


class Gradient(Baseline):
    """The absolute gradient `|dy/dx|` (Simonyan, Vedaldi, Zisserman, ICLR workshop 2014, section 3.1)."""

    def signed_maps(self, classifier: MammogramClassifier, images: Tensor, signs: Tensor) -> Tensor:
        """Compute the map of pixels."""
        return _image_gradients(classifier, images, signs).abs()


class SmoothGrad(Baseline):
    """SmoothGrad: the mean gradient over noisy copies of an image, then its absolute value.

    Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017, section 2.

    Args:
        seed: of the noise. It comes from its own generator and is the same for every image and on every device, so
            that a map depends neither on the rest of the batch nor on what else drew random numbers.
        noise: standard deviation as a fraction of the image's range, max - min; the default is the middle of the 10 to
            20 % that the paper recommends. The noisy copies may leave [0, 1], as in the paper.
        copies: how many [open]; the paper sees little gain above 50.
    """

    @checked
    def __init__(self, seed: NotNegativeCount = 0, noise: NotNegative = 0.15, copies: Count = 25) -> None:
        self.seed, self.noise, self.copies = seed, noise, copies

    def signed_maps(self, classifier: MammogramClassifier, images: Tensor, signs: Tensor) -> Tensor:
        """Compute the map of pixels."""
        generator = torch.Generator().manual_seed(self.seed)
        spread = self.noise * (images.amax(dim=(1, 2, 3), keepdim=True) - images.amin(dim=(1, 2, 3), keepdim=True))
        total = torch.zeros_like(images[:, 0])
        for _ in range(self.copies):
            field = torch.randn(images.shape[1:], generator=generator).to(images)
            total += _image_gradients(classifier, images + spread * field, signs)
        return (total / self.copies).abs()


class AttentionRollout(Baseline):
    """Attention rollout weighed by gradients, for vision transformers (Chefer, Gur, Wolf, ICCV 2021, Eq. 5-6).

    From the identity on, `R = R + A R` block by block, with `A = mean over heads of relu(dy/dA * A)`. The source reads
    the row of the class token; there is none in the score map, so the rows of its cells are summed, each weighed by
    what it adds to the logit, `relu(sum_c dy/dF_c * F_c)` of the last map F [reading].
    """

    def signed_maps(self, classifier: MammogramClassifier, images: Tensor, signs: Tensor) -> Tensor:
        """Compute the map of cells."""
        blocks = attention_blocks(classifier)
        attentions: list[Tensor] = []
        hooks = [
            block.attn_drop.register_forward_hook(lambda _, __, attention: attentions.append(attention))
            for block in blocks
        ]
        fused = [block.fused_attn for block in blocks]
        try:
            for block in blocks:
                block.fused_attn = False  # which keeps no attention
            features = classifier.backbone(images.detach().clone().requires_grad_())
            logit = classifier.look(images, features).logit
        finally:
            for block, was, hook in zip(blocks, fused, hooks, strict=True):
                block.fused_attn = was
                hook.remove()
        *gradients, of_features = torch.autograd.grad((signs * logit).sum(), [*attentions, features])
        cells = functional.relu((of_features * features).sum(dim=1))
        tokens = attentions[0].shape[-1]
        prefix = tokens - cells[0].numel()
        if prefix < 0 or any(one.shape[-1] != tokens or len(one) != len(images) for one in attentions):
            raise LemlightError(
                "localization.method=rollout follows attention over all tokens of an image, and this network attends "
                "within windows: use localization.method=cam or grad_cam"
            )
        rolled = torch.eye(tokens, device=cells.device).expand(len(images), -1, -1)
        for attention, gradient in zip(attentions, gradients, strict=True):
            rolled = rolled + functional.relu(gradient * attention).mean(dim=1) @ rolled
        found = torch.einsum("nk,nkl->nl", cells.flatten(1), rolled[:, prefix:, prefix:])
        return found.view_as(cells)


def attention_blocks(classifier: MammogramClassifier) -> list[Any]:
    """The attentions of a vision transformer of timm; LemlightError for a network without them."""
    found: list[Any] = [
        module for module in classifier.modules() if hasattr(module, "fused_attn") and hasattr(module, "attn_drop")
    ]
    if not found:
        raise LemlightError(
            "localization.method=rollout follows the attention of a vision transformer (backbone=timm), and this "
            "network has none: use localization.method=importance, cam or grad_cam"
        )
    return found


class Captum(Baseline):
    """A method of captum: what it attributes to the pixels, or to the last map, as far as it is positive [reading].

    Args:
        method: its class in captum.attr; those whose names begin with Layer explain the last map.
        arguments: of its `attribute`, as sliding_window_shapes for Occlusion.

    Raises:
        LemlightError: captum is not installed, or has no such method.
    """

    @checked
    def __init__(self, method: str = "IntegratedGradients", arguments: dict[str, Any] | None = None) -> None:
        try:
            from captum import attr
        except ImportError as error:
            raise LemlightError("localization/methods=captum needs captum: pip install 'lemlight[captum]'") from error
        known = [name for name in dir(attr) if isinstance(getattr(attr, name), type)]
        if method not in known:
            raise LemlightError(f"captum has no method {method}{did_you_mean(method, known, 3)}")
        self.explainer, self.layer = getattr(attr, method), method.startswith("Layer")
        self.arguments = {
            key: tuple(value) if isinstance(value, list) else value for key, value in (arguments or {}).items()
        }

    def signed_maps(self, classifier: MammogramClassifier, images: Tensor, signs: Tensor) -> Tensor:
        """Compute the map of pixels, or of cells; random numbers are the same for every image."""
        found: list[Tensor] = []
        layer = [classifier.backbone] if self.layer else []
        with torch.random.fork_rng():
            for image, sign in zip(images, signs.tolist(), strict=True):
                torch.manual_seed(0)
                explainer = self.explainer(_Signed(classifier, sign), *layer)
                attributed = explainer.attribute(image[None].clone().requires_grad_(), **self.arguments)
                found.append((attributed[0] if isinstance(attributed, tuple) else attributed).sum(dim=1))
        return functional.relu(torch.cat(found))


class _Signed(nn.Module):
    """A classifier as captum takes one: images -> signed logits."""

    def __init__(self, classifier: MammogramClassifier, sign: float) -> None:
        super().__init__()
        self.classifier, self.sign = classifier, sign

    def forward(self, images: Tensor) -> Tensor:
        logit: Tensor = self.classifier(images).logit
        return self.sign * logit


def cam_of_scores(score_map: Tensor, signs: Tensor) -> Tensor:
    """CAM of a score map `(N, h, w)` that is there already."""
    return functional.relu(signs.view(-1, 1, 1) * score_map)


def signs_of(malignant: Tensor) -> Tensor:
    """+1 for images predicted malignant, whose logit is explained, and -1 for the others: `(N,)` float32."""
    return malignant.bool().float() * 2 - 1


def _feature_gradients(classifier: MammogramClassifier, features: Tensor, signs: Tensor, images: Tensor) -> Tensor:
    """The gradient of the signed logit with respect to the features: `(N, C, h, w)`."""
    features = features.detach().requires_grad_()
    logit = classifier.look(images, features).logit
    # images do not see one another in eval mode: the gradient of the sum is that of each image
    (gradients,) = torch.autograd.grad((signs * logit).sum(), features)
    return gradients


def _weighted_sum(weights: Tensor, features: Tensor) -> Tensor:
    """`relu(sum_c w_c A_c)` of weights `(N, C)` and features `(N, C, h, w)`."""
    return functional.relu(torch.einsum("nc,nchw->nhw", weights, features))


def _image_gradients(classifier: MammogramClassifier, images: Tensor, signs: Tensor) -> Tensor:
    """The gradient of the signed logit with respect to the image: `(N, H, W)`."""
    # clone: a tensor made in a caller's inference mode can have no gradient
    images = images.detach().clone().requires_grad_()
    # images do not see one another in eval mode: the gradient of the sum is that of each image
    (gradients,) = torch.autograd.grad((signs * classifier(images).logit).sum(), images)
    return gradients[:, 0]
