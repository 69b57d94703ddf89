"""The sections backbone, pooling and loss."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lemlight.config.base import Count, NotNegative, Positive, PositiveShare, Section


class BackboneConfig(Section):
    """A CNN, where its first weights come from, and the stride of its feature map."""

    name: str
    weights: Literal["imagenet", "bundled", "file", "none"]
    weights_file: str | None
    output_stride: Literal[16, 32]

    @model_validator(mode="after")
    def _weights_exist(self) -> "BackboneConfig":
        if (self.weights == "file") != (self.weights_file is not None):
            raise ValueError("weights=file and weights_file=FILE go together: give both or neither")
        if self.weights == "bundled" and self.name != "efficientnet_lite0":
            raise ValueError(
                f"no weights of {self.name} are bundled: use backbone.weights=imagenet (a download), file or none, "
                "or backbone=efficientnet_lite0"
            )
        if self.weights == "imagenet" and self.name == "efficientnet_lite0":
            raise ValueError("the ImageNet weights of efficientnet_lite0 are bundled: use backbone.weights=bundled")
        return self


class PlainPooling(Section):
    """A pooling without options."""

    name: Literal["gap", "gmp", "peak", "sparse_mil"]


class TopSharePooling(Section):
    """RGP and GGP: the share `k` of regions or activations that is kept."""

    name: Literal["rgp", "ggp"]
    k: PositiveShare


class LsePooling(Section):
    """Log-sum-exp with its sharpness `r`."""

    name: Literal["lse"]
    r: Positive


class MaxMinPooling(Section):
    """WILDCAT: shares of the highest and lowest scores, and the weight of the lowest."""

    name: Literal["max_min"]
    kmax: PositiveShare
    kmin: PositiveShare
    alpha: NotNegative


class AttentionPooling(Section):
    """Gated attention of the given width."""

    name: Literal["attention_mil"]
    hidden: Count


class LemConfig(Section):
    """Local extremum mapping with every value that the paper leaves open."""

    name: Literal["lem"]
    aggregate: Literal["mean", "sum"]
    ties: Literal["strict", "all"]
    threshold: NotNegative
    penalty_factor: NotNegative
    norm: Literal["l1", "l2"]


PoolingConfig = Annotated[
    PlainPooling | TopSharePooling | LsePooling | MaxMinPooling | AttentionPooling | LemConfig,
    Field(discriminator="name"),
]


class CombinedLoss(Section):
    """Eq. 8 of the paper."""

    name: Literal["combined"]
    beta: NotNegative
    positive_weight: Positive | Literal["balanced"] | None
    ramp_all_poolings: bool


class BceLoss(Section):
    """Binary cross-entropy of the pooling's logit alone."""

    name: Literal["bce"]
    positive_weight: Positive | Literal["balanced"] | None


LossConfig = Annotated[CombinedLoss | BceLoss, Field(discriminator="name")]
