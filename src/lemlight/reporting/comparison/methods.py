"""What a method is: the settings in which the trainings differ, apart from seed and fold."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lemlight.sweeps.names import WITHOUT_EFFECT, short_numbers
from lemlight.training.privacy import public_config

REPEATS = ("seed", "dataset.split.fold")
# settings that change no network: of the machine, of what is shown, of how lesions are drawn and measured
NO_METHOD = (*WITHOUT_EFFECT, "bootstrap", "resume", "label_names", "localization", "trainer.accelerator")
SECTIONS = ("pooling", "backbone", "loss", "dataset", "augmentation", "optimizer", "scheduler")
ABSENT = "(none)"
NAMES = {
    **{name: name.upper() for name in ("lem", "gap", "gmp", "rgp", "ggp", "lse")},
    "max_min": "max-min",
    "sparse_mil": "sparse MIL",
    "attention_mil": "attention MIL",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "densenet121": "DenseNet-121",
    "densenet169": "DenseNet-169",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
}

Settings = Mapping[str, str]


@dataclass(frozen=True)
class Methods:
    """The methods of some trainings, in the order of these.

    `names` is the method of every training; `keys` are the settings that tell the methods apart; `besides` are further
    settings that change with them, so that a difference may come from these.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    besides: tuple[str, ...]

    def sentence(self) -> str:
        """Say what a method is here."""
        if not self.keys:
            return "All trainings have the same settings apart from seed and fold: there is one method."
        return f"A method is a value of {' and '.join(self.keys)}; trainings that differ in seed or fold repeat it."

    def warning(self) -> str:
        """Say what else differs between the methods, empty where nothing does."""
        if not self.besides:
            return ""
        return f"The methods also differ in {', '.join(self.besides)}: a difference may come from there."


def find_methods(configs: Sequence[Mapping[str, Any]]) -> Methods:
    """Name the method of every configuration of a training."""
    settings = [flat_settings(config) for config in configs]
    varying = [key for key in differing_keys(settings) if key not in REPEATS and not _within(key, NO_METHOD)]
    keys: list[str] = []
    for key in sorted(varying, key=_importance):
        if _varies_within(settings, keys, key):
            keys.append(key)
    named = {key.removesuffix(".name") for key in keys if key.endswith(".name")}
    besides = [key for key in varying if key not in keys and not _within(key, named)]
    names = tuple(_name(own, settings, keys) for own in settings)
    short = tuple(short_numbers(name) for name in names)
    return Methods(short if len(set(short)) == len(set(names)) else names, tuple(keys), tuple(besides))


def flat_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the public settings of a configuration (no path) as text, by key with dots."""
    return dict(_flat(public_config(config), ""))


def differing_keys(settings: Sequence[Settings]) -> list[str]:
    """List the keys in which settings differ, in their order in the configuration."""
    keys = dict.fromkeys(key for own in settings for key in own)
    return [key for key in keys if len({own.get(key, ABSENT) for own in settings}) > 1]


def _flat(values: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str)


def _within(key: str, sections: Iterable[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _importance(key: str) -> tuple[int, int]:
    """The choices come first, and among them the pooling; sorting keeps the order of the others."""
    section = key.partition(".")[0]
    place = SECTIONS.index(section) if section in SECTIONS else len(SECTIONS)
    return (0 if key == f"{section}.name" else 1, place)


def _varies_within(settings: Sequence[Settings], keys: Sequence[str], key: str) -> bool:
    """Whether a key still differs between settings that agree in `keys`."""
    values: dict[tuple[str, ...], set[str]] = {}
    for own in settings:
        values.setdefault(_values(own, keys), set()).add(own.get(key, ABSENT))
    return any(len(group) > 1 for group in values.values())


def _values(own: Settings, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(own.get(key, ABSENT) for key in keys)


def _name(own: Settings, settings: Sequence[Settings], keys: Sequence[str]) -> str:
    """Name a method by the values of the keys, each only where it still tells methods apart."""
    parts = []
    for place, key in enumerate(keys):
        before = keys[:place]
        alike = [other for other in settings if _values(other, before) == _values(own, before)]
        if len({other.get(key, ABSENT) for other in alike}) > 1:
            parts.append(_part(key, own.get(key, ABSENT)))
    if not any(key.endswith(".name") for key in keys):
        parts.insert(0, _part("pooling.name", own.get("pooling.name", "trained network")))
    return ", ".join(parts)


def _part(key: str, value: str) -> str:
    return NAMES.get(value, value) if key.endswith(".name") else f"{key} = {value}"
