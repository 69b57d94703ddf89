"""The card that travels in every checkpoint: what was trained is what is deployed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

CARD_KEY = "lemlight"
FORMAT = 1
CARD_FIELDS = {
    "config": dict,
    "label_names": list,
    "preprocessing": dict,
    "versions": dict,
    "trained_on": list,
    "localization": dict,
}


def seal(card: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a card as plain values, with the number of its format.

    A card holds config, label_names, preprocessing, versions, trained_on (fingerprints of the prepared training images)
    and localization (what was chosen on the validation split, by method; empty before that). Raises TypeError for a
    missing or unknown field and for values that are not plain: the mistake of a programmer, who is to see it before the
    training.
    """
    wrong = set(card) ^ set(CARD_FIELDS)
    if wrong:
        raise TypeError(f"a checkpoint's card holds {', '.join(CARD_FIELDS)}: check {', '.join(sorted(wrong))}")
    return {"format": FORMAT, **{name: plain(value) for name, value in card.items()}}


def plain(value: Any) -> Any:
    """Copy `value` into dicts with string keys, lists, strings, numbers, booleans and None; paths become strings.

    Raises TypeError for anything else: `torch.load(weights_only=True)` would refuse it.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    raise TypeError(f"a checkpoint's card holds plain values only, not {type(value).__name__}")
