"""The leak report: what stands in which split, and what stands in more than one."""

from dataclasses import asdict, dataclass

import pandas as pd

from lemlight.data.table import SPLITS, first_ten


@dataclass(frozen=True)
class SplitCounts:
    """One split in numbers; `share` is its share of all images in [0, 1]."""

    split: str
    images: int
    malignant: int
    patients: int
    share: float


@dataclass(frozen=True)
class LeakReport:
    """Counts per split, and the patients, breasts (patient, side) and files that more than one split holds."""

    scheme: str
    splits: tuple[SplitCounts, ...]
    leaking_patients: tuple[str, ...]
    leaking_breasts: tuple[str, ...]
    leaking_files: tuple[str, ...]
    warnings: tuple[str, ...]

    def text(self, names: bool = True) -> str:
        """Draw the report as a short table with its warnings below; without `names` no patient is named in it."""
        lines = [f"split by {self.scheme}"] if self.scheme else []
        lines.append(f"{'split':<8}{'images':>8}{'share':>8}{'malignant':>11}{'patients':>10}")
        lines += [
            f"{row.split or '(none)':<8}{row.images:>8}{row.share:>8.1%}{row.malignant:>11}{row.patients:>10}"
            for row in self.splits
        ]
        lines.append(
            f"in more than one split: {len(self.leaking_patients)} patients, "
            f"{len(self.leaking_breasts)} breasts, {len(self.leaking_files)} files"
        )
        if names and self.leaking_patients:
            lines.append(f"these patients: {first_ten(self.leaking_patients)}")
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])

    def to_dict(self) -> dict[str, object]:
        """Give the report as plain lists, numbers and strings for JSON."""
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def _in_several_splits(table: pd.DataFrame, key: "pd.Series[str]") -> tuple[str, ...]:
    splits = table[table["split"] != ""].groupby(key)["split"].nunique()
    return tuple(sorted(splits.index[splits > 1].astype(str)))


def _warnings(scheme: str, counts: list[SplitCounts], patients: tuple[str, ...], files: tuple[str, ...]) -> list[str]:
    warnings = []
    if scheme == "image":
        warnings.append(
            "this split is image-wise: views of one breast can stand on both sides, which flatters "
            "every figure; dataset.split.scheme=patient keeps patients apart"
        )
    if patients:
        warnings.append(f"{len(patients)} patients are trained and tested on: the figures do not hold for new patients")
    if files:
        warnings.append(f"{len(files)} files in more than one split: the same image is trained and tested on")
    for row in counts:
        if row.images and row.malignant in (0, row.images):
            only = "malignant" if row.malignant else "benign"
            warnings.append(f"{row.split or '(none)'} holds one class only ({row.images} {only}): its AUC is undefined")
    return warnings


def leak_report(table: pd.DataFrame, scheme: str = "") -> LeakReport:
    """Count an image table split by split, and find what leaks; `scheme` is named in the report."""
    counts = []
    for split in dict.fromkeys((*SPLITS, *sorted(table["split"].unique()))):
        rows = table[table["split"] == split]
        if len(rows) or split in SPLITS:
            share = len(rows) / max(1, len(table))
            counts.append(SplitCounts(split, len(rows), int(rows["label"].sum()), rows["patient_id"].nunique(), share))
    sided = table[table["laterality"] != ""]
    patients = _in_several_splits(table, table["patient_id"])
    breasts = _in_several_splits(sided, sided["patient_id"] + " " + sided["laterality"])
    files = _in_several_splits(table, table["path"])
    warnings = tuple(_warnings(scheme, counts, patients, files))
    return LeakReport(scheme, tuple(counts), patients, breasts, files, warnings)
