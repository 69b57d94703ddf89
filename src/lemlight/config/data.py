"""The sections dataset and augmentation."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lemlight.config.base import InnerShare, Section, Share


class PrepareConfig(Section):
    """The geometry of a prepared image, in px."""

    height: Annotated[int, Field(ge=32)]
    width: Annotated[int, Field(ge=32)]
    crop: bool
    flip: bool


class SplitConfig(Section):
    """How images are dealt to train, val and test."""

    scheme: Literal["patient", "kfold", "image", "column"]
    seed: Annotated[int, Field(ge=0)]
    test_share: InnerShare
    val_share: InnerShare
    folds: Annotated[int, Field(ge=2)]
    fold: Annotated[int, Field(ge=0)]
    allow_leaks: bool

    @model_validator(mode="after")
    def _parts_fit(self) -> "SplitConfig":
        if self.test_share + self.val_share >= 1:
            raise ValueError("test_share + val_share must stay below 1: nothing is left to train on")
        if self.fold >= self.folds:
            raise ValueError(f"fold counts from 0: it must be below folds={self.folds}, got {self.fold}")
        return self


class Dataset(Section):
    """What every data set has."""

    root: str
    prepare: PrepareConfig
    split: SplitConfig

    def source_options(self) -> dict[str, object]:
        """The settings that the data set's own source takes, beside its root."""
        shared = {"name", "root", "prepare", "split"}
        return {key: value for key, value in self.model_dump().items() if key not in shared}


class FolderDataset(Dataset):
    """A folder and a CSV."""

    name: Literal["folder"]
    csv: str


class PhantomDataset(Dataset):
    """Synthetic mammograms."""

    name: Literal["phantom"]
    patients: Annotated[int, Field(ge=4)]
    seed: Annotated[int, Field(ge=0)]
    difficulty: Share
    scale: Annotated[float, Field(ge=0.25, le=4)]


class CbisDataset(Dataset):
    """CBIS-DDSM."""

    name: Literal["cbis"]
    tables: str | None
    patient_disjoint: bool
    allow_missing: bool


class InbreastDataset(Dataset):
    """INbreast."""

    name: Literal["inbreast"]
    malignant_from: Annotated[int, Field(ge=2, le=6)]
    leave_out: list[Literal[1, 2, 3, 4, 5, 6, "4a", "4b", "4c"]]
    allow_missing: bool


class MiasDataset(Dataset):
    """mini-MIAS."""

    name: Literal["mias"]
    normal_images: bool
    allow_missing: bool


class VindrDataset(Dataset):
    """VinDr-Mammo."""

    name: Literal["vindr"]
    malignant_from: Annotated[int, Field(ge=2, le=5)]
    leave_out: list[Literal[1, 2, 3, 4, 5]]
    allow_missing: bool


class RsnaDataset(Dataset):
    """RSNA Screening Mammography Breast Cancer Detection."""

    name: Literal["rsna"]
    views: Annotated[list[Literal["CC", "MLO", "AT", "LM", "LMO", "ML"]], Field(min_length=1)]
    allow_missing: bool


class CmmdDataset(Dataset):
    """CMMD."""

    name: Literal["cmmd"]
    normal_images: bool
    allow_missing: bool


DatasetConfig = Annotated[
    FolderDataset
    | PhantomDataset
    | CbisDataset
    | InbreastDataset
    | MiasDataset
    | VindrDataset
    | RsnaDataset
    | CmmdDataset,
    Field(discriminator="name"),
]


class NoAugmentation(Section):
    """Images as prepared."""

    name: Literal["none"]


class StandardAugmentation(Section):
    """Flip, rotation, brightness and contrast, Gaussian noise; each with its probability."""

    name: Literal["standard"]
    flip: Share
    vertical_flip: Share
    rotate: Share
    degrees: Annotated[float, Field(ge=0, le=180)]
    brightness_contrast: Share
    brightness: Share
    contrast: Share
    noise: Share
    noise_std: Share


AugmentationConfig = Annotated[NoAugmentation | StandardAugmentation, Field(discriminator="name")]
