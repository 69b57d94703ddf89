"""The pooling methods: score map (and features) -> logit; one file each."""

import inspect
from difflib import get_close_matches
from typing import Any

from lemlight.errors import LemlightError
from lemlight.models.pooling.attention_mil import AttentionMIL
from lemlight.models.pooling.base import Pooling
from lemlight.models.pooling.gap import GlobalAveragePooling
from lemlight.models.pooling.ggp import GlobalGroupMaxPooling
from lemlight.models.pooling.gmp import GlobalMaxPooling
from lemlight.models.pooling.lem import LocalExtremumMapping
from lemlight.models.pooling.lse import LogSumExpPooling
from lemlight.models.pooling.max_min import MaxMinPooling
from lemlight.models.pooling.peak import PeakStimulation
from lemlight.models.pooling.rgp import RegionGroupMaxPooling
from lemlight.models.pooling.sparse_mil import SparseMIL

__all__ = ["POOLINGS", "Pooling", "build_pooling"]

POOLINGS: dict[str, type[Pooling]] = {
    "gap": GlobalAveragePooling,
    "gmp": GlobalMaxPooling,
    "rgp": RegionGroupMaxPooling,
    "ggp": GlobalGroupMaxPooling,
    "lem": LocalExtremumMapping,
    "lse": LogSumExpPooling,
    "max_min": MaxMinPooling,
    "peak": PeakStimulation,
    "sparse_mil": SparseMIL,
    "attention_mil": AttentionMIL,
}


def build_pooling(name: str, channels: int, **options: Any) -> Pooling:
    """Build a pooling method for features of `channels` channels.

    Raises:
        LemlightError: unknown name or option, or a value outside its range.
    """
    if name not in POOLINGS:
        matches = get_close_matches(name, POOLINGS, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(matches)}? " if matches else ""
        raise LemlightError(f"pooling '{name}' is unknown. {hint}There are {', '.join(POOLINGS)}.")
    pooling = POOLINGS[name]
    accepted = inspect.signature(pooling).parameters
    # Without an __init__ of its own a method shows nn.Module's catch-all *args, **kwargs.
    legal = [key for key, value in accepted.items() if value.kind is value.POSITIONAL_OR_KEYWORD and key != "channels"]
    unknown = [key for key in options if key not in legal]
    if unknown:
        known = f"it has {', '.join(legal)}" if legal else "it has none"
        raise LemlightError(f"pooling '{name}' has no option {', '.join(unknown)}; {known}.")
    if "channels" in accepted:
        options["channels"] = channels
    return pooling(**options)
