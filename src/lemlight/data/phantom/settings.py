"""What a phantom is made from: its settings, their checks, and the stamp that names its folder."""

import hashlib
import json
from dataclasses import asdict, dataclass

from lemlight.errors import LemlightError

GENERATOR_VERSION = 2  # raise it with every change that alters a pixel or a tag: the folder's name depends on it

LIMITS: dict[str, tuple[float, float]] = {
    "patients": (1, 9999),  # whole numbers here are whole in the settings; four digits in a patient ID
    "seed": (0, 2**32 - 1),
    "difficulty": (0.0, 1.0),
    "scale": (0.25, 4.0),  # of about 1024 x 832 px
    "malignant_share": (0.0, 1.0),
    "benign_share": (0.0, 1.0),
}


@dataclass(frozen=True)
class PhantomSettings:
    """The size, seed and difficulty of a phantom; LemlightError lists every impossible value.

    patients: two breasts and four images each.
    difficulty: 0 (easy) to 1 (hard): contrast of lesions against the texture, and how alike malignant and benign are.
    scale: side length of the images relative to about 1024 x 832 px.
    malignant_share: share of the patients with a malignant lesion in one breast.
    benign_share: share of all other breasts with a benign lesion; the rest is normal.
    """

    patients: int = 120
    seed: int = 0
    difficulty: float = 0.5
    scale: float = 1.0
    malignant_share: float = 0.45
    benign_share: float = 0.6

    def __post_init__(self) -> None:
        problems = []
        for name, value in asdict(self).items():
            low, high = LIMITS[name]
            whole = isinstance(low, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                problems.append(f"{name} must be a {'whole ' if whole else ''}number, got {value!r}")
            elif not low <= value <= high:  # NaN, too
                problems.append(f"{name} must lie between {low} and {high}, got {value!r}")
        if problems:
            raise LemlightError("impossible phantom settings: " + "; ".join(problems))

    def stamp(self) -> dict[str, float]:
        """All that decides the files; a limit's type makes 1 and 1.0 the same."""
        numbers = {name: type(LIMITS[name][0])(value) for name, value in asdict(self).items()}
        return {**numbers, "generator_version": GENERATOR_VERSION}

    def folder_name(self) -> str:
        """`phantom-<hash>`: another setting or generator makes another folder, never a mix."""
        text = json.dumps(self.stamp(), sort_keys=True)
        return "phantom-" + hashlib.sha256(text.encode()).hexdigest()[:12]
