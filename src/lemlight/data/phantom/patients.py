"""What a phantom is made from: its settings, and the patients, devices and lesions that they draw."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from lemlight.arguments import Probability, checked

GENERATOR_VERSION = 2  # raise it with every change that alters a pixel or a tag: the folder's name depends on it

Patients = Annotated[int, Field(ge=1, le=9999)]  # four digits in a patient ID
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Difficulty = Probability
Scale = Annotated[float, Field(ge=0.25, le=4)]
SIDES = ("L", "R")
VIEWS = ("CC", "MLO")
MALIGNANT = ("spiculated_mass", "calcification_cluster")
BENIGN = ("smooth_mass", "coarse_calcifications")
NORMAL = "normal"

# rows, columns at scale 1, bits stored, photometric interpretation, VOI function ("" = no window in the file)
DEVICES = (
    (1024, 832, 12, "MONOCHROME2", "LINEAR"),
    (960, 768, 14, "MONOCHROME1", "LINEAR"),
    (1120, 896, 12, "MONOCHROME2", "SIGMOID"),
    (1024, 800, 12, "MONOCHROME1", ""),
    (960, 768, 14, "MONOCHROME2", ""),
)


@dataclass(frozen=True)
class Vendor:
    """How a vendor's images look: grey curve (exponent), noise (deviation at brightness 1), blur (px at 1024 rows).

    sharpening: how much of what a blur takes away is added instead, 0 for none.
    """

    curve: float = 1.0
    noise: float = 0.0
    blur: float = 0.0
    sharpening: float = 0.0


VENDORS = {
    "plain": Vendor(),
    "soft": Vendor(curve=0.6, blur=2.5),  # flat and unsharp
    "hard": Vendor(curve=1.7, noise=0.05, blur=2.0, sharpening=1.5),  # steep, grainy, edges enhanced
}
VendorName = Literal["plain", "soft", "hard"]


@dataclass(frozen=True)
class PhantomSettings:
    """The size, seed and difficulty of a phantom; LemlightError lists every impossible value.

    patients: with two breasts and four images each.
    difficulty: 0 (easy) to 1 (hard): contrast of lesions against the texture, and how alike malignant and benign are.
    scale: side length of the images relative to about 1024 x 832 px.
    malignant_share: fraction of the patients with a malignant lesion in one breast.
    benign_share: fraction of all other breasts with a benign lesion; the rest is normal.
    film: fraction of the patients whose images are scanned film.
    vendor: of the machine, see VENDORS; its images look different, and nothing else does.
    """

    patients: Patients = 120
    seed: Seed = 0
    difficulty: Difficulty = 0.15
    scale: Scale = 1.0
    malignant_share: Probability = 0.45
    benign_share: Probability = 0.6
    film: Probability = 0.0
    vendor: VendorName = "plain"

    def stamp(self) -> dict[str, float | str]:
        """All that decides the files; no film and no vendor are no setting, as it was before there were any."""
        stamp = {**asdict(self), "generator_version": GENERATOR_VERSION}
        without = [name for name, value in (("film", 0), ("vendor", "plain")) if stamp[name] == value]
        return {name: value for name, value in stamp.items() if name not in without}

    def folder_name(self) -> str:
        """`phantom-<hash>`: another setting or generator makes another folder, never a mix."""
        text = json.dumps(self.stamp(), sort_keys=True)
        return "phantom-" + hashlib.sha256(text.encode()).hexdigest()[:12]


PhantomSettings.__init__ = checked(PhantomSettings.__init__)  # type: ignore[method-assign]


@dataclass(frozen=True)
class Device:
    """The machine that took a patient's images; shape in px, bits stored, its photometric interpretation and VOI."""

    shape: tuple[int, int]
    bits: int
    photometric: str
    voi: str


@dataclass(frozen=True)
class Patient:
    """What both breasts share. Lengths in mm; density in [0, 1]; malignant_side is "L", "R" or ""."""

    number: int
    malignant_side: str
    device: Device
    depth: float  # chest wall to nipple
    half_height: float
    density: float
    brightness: float
    gamma: float
    compression: float  # width of the rounded edge, mm

    @property
    def patient_id(self) -> str:
        """`PH0001` and so on."""
        return f"PH{self.number + 1:04d}"


@dataclass(frozen=True)
class Lesion:
    """One lesion, the same in both views of its breast.

    radius: mm; depth: fraction of the way from the nipple to the chest wall; lateral: place between the edges of the
    breast in (CC, MLO), each in [0, 1]; contrast: relative, around 1.
    """

    finding: str
    radius: float
    depth: float
    lateral: tuple[float, float]
    contrast: float


def generator(seed: int, *key: int) -> np.random.Generator:
    """A random generator of its own for each (patient, side, view) or prefix of it."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def draw_patient(settings: PhantomSettings, number: int) -> Patient:
    """Draw patient `number` (from 0); malignancy is spread evenly over the numbers and independent of all else."""
    rng = generator(settings.seed, number)
    side = SIDES[int(rng.integers(2))]
    size = rng.uniform(0.78, 1.12)
    return Patient(
        number=number,
        malignant_side=side if _turn(settings, number) < settings.malignant_share else "",
        device=_draw_device(settings, number),
        depth=float(105 * size * rng.uniform(0.85, 1.08)),
        half_height=float(96 * size),
        density=float(rng.beta(1.6, 1.8)),
        brightness=float(rng.uniform(0.86, 1.14)),
        gamma=float(rng.uniform(0.85, 1.2)),
        compression=float(rng.uniform(9, 16)),
    )


def _turn(settings: PhantomSettings, number: int) -> float:
    """A number in [0, 1) that is spread evenly over any run of patients: steps of the golden ratio."""
    return float((generator(settings.seed).random() + number * (math.sqrt(5) - 1) / 2) % 1)


def in_turn(settings: PhantomSettings, what: int, place: int, count: int) -> int:
    """One of `count` options at random, but such that any `count` places in a row, from 0 on, show each once.

    what: which choice this is, so that two choices are independent.
    """
    block, within = divmod(place, count)
    order = generator(settings.seed, block, len(SIDES) + what).permutation(count)  # a key that no breast has
    return int(order[within])


def _draw_device(settings: PhantomSettings, number: int) -> Device:
    rows, columns, bits, photometric, voi = DEVICES[in_turn(settings, 0, number, len(DEVICES))]
    return Device((round(rows * settings.scale), round(columns * settings.scale)), bits, photometric, voi)


def draw_lesion(settings: PhantomSettings, patient: Patient, side: str) -> Lesion | None:
    """The lesion of one breast, or None for a normal one."""
    rng = generator(settings.seed, patient.number, SIDES.index(side))
    kind, benign = int(rng.integers(2)), bool(rng.random() < settings.benign_share)
    malignant = side == patient.malignant_side
    if malignant:  # both kinds equally often, even among few patients
        kind = int(_turn(settings, patient.number) < settings.malignant_share / 2)
    share = math.exp(rng.uniform(math.log(0.003), math.log(0.010)))  # of the breast, before the view changes its area
    area = 1.55 * patient.depth * patient.half_height
    lesion = Lesion(
        finding=MALIGNANT[kind] if malignant else BENIGN[kind],
        radius=math.sqrt(share * area / math.pi),
        depth=float(rng.uniform(0.3, 0.75)),
        lateral=(float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.2, 0.8))),
        contrast=float(rng.uniform(0.8, 1.2)),
    )
    return lesion if malignant or benign else None
