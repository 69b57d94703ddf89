"""What a run shows: its metrics as tables on the terminal, and one self-contained page with its figures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lemlight.metrics import CLASSIFICATION_NAMES, LOCALIZATION_NAMES
from lemlight.metrics.levels import RULES, UNITS, known_levels, level_section
from lemlight.metrics.significance import SIGNIFICANT
from lemlight.metrics.subgroups import TESTED, group_name, subgroup_rows
from lemlight.reporting.page import base64_of, write_page
from lemlight.text import heading, interval_text, plain_table, value_text

SHORT = ("auroc", "sensitivity", "specificity")  # of the levels, what fits a terminal
METHOD_NAMES = {
    "importance": "Importance",
    "cam": "CAM",
    "grad_cam": "Grad-CAM",
    "grad_cam_pp": "Grad-CAM++",
    "gradient": "Gradient",
    "smooth_grad": "SmoothGrad",
}
# name of a figure -> its heading, and what it shows for those who do not see it; other names are their own heading
PLOT_TEXTS = {
    "sheet": (
        "Images, score maps and extrema",
        "Images of the split, each beside its score map: maxima are triangles pointing up, minima triangles pointing "
        "down, true lesions are outlined; one colour scale holds for all.",
    ),
    "roc": ("ROC curve", "True against false positive rate with the pointwise 95 % band over patients."),
    "reliability": (
        "Reliability",
        "Fraction of malignant images against predicted probability in bins of equal width, with 95 % Wilson intervals "
        "(sample size: the patients of the bin) and the number of images per bin.",
    ),
    "overlays": (
        "Where the network looks",
        "Each image beside itself under its location map: regions outlined, true lesions dashed; the three best, "
        "three around the median and the three worst by Dice.",
    ),
    "froc": (
        "FROC curve",
        "Fraction of lesions found against false positives per image, as the score from which a region counts falls.",
    ),
    "subgroups": (
        "Subgroups, drawn",
        "AUC, sensitivity and specificity of each subgroup with 95 % intervals; in brackets its images and patients; "
        "the dotted line is that of all images, a subgroup that is too small has none.",
    ),
    "curves": ("Training", "Losses, metrics on the validation split and lambda over the training."),
}


def metric_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return name, value, interval and reason (where something is undefined) of the classification in a summary."""
    metrics = [(heading(key), summary[key]) for key in CLASSIFICATION_NAMES if key in summary]
    return [(name, value_text(metric), interval_text(metric), metric.get("reason", "")) for name, metric in metrics]


def level_heads(summary: Mapping[str, Any]) -> list[str]:
    """Return a head for each level that a summary has figures of, with the number of its units."""
    heads = []
    for level in known_levels(summary):
        section = level_section(summary, level)
        primary = ", primary" if level == summary.get("primary_level") != "image" else ""
        heads.append(f"By {level} ({section['images' if level == 'image' else 'units']}{primary})")
    return heads


def level_rows(summary: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return for each metric its name, and value, interval and reason (as `metric_rows`) at every level."""
    columns = [metric_rows(level_section(summary, level)) for level in known_levels(summary)]
    return [(row[0][0], [cell[1:] for cell in row]) for row in zip(*columns, strict=True)]


def level_notes(summary: Mapping[str, Any]) -> list[str]:
    """Say how images make the other levels, and which levels the data do not define."""
    sections, known = summary.get("levels", {}), known_levels(summary)[1:]
    notes = []
    if known:
        rule = RULES[sections[known[0]]["rule"]]
        units = " or ".join(known)
        notes.append(f"The probability of a {units} is the {rule} of its images; it is malignant if any of them is.")
        if sections.get("breast", {}).get("together"):
            notes.append(
                "Of a breast it is the network's own: trained on breasts, it judged all views of one together."
            )
        notes += [
            f"{sections[level]['mixed']} of {sections[level]['units']} {UNITS[level]} hold images of both labels."
            for level in known[:1]
            if sections[level]["mixed"]
        ]
    notes += [f"Not by {level}: {part['reason']}." for level, part in sections.items() if "reason" in part]
    return notes + ensemble_notes(summary)


def ensemble_notes(summary: Mapping[str, Any]) -> list[str]:
    """Say who has judged which images where it was an ensemble, and how each of its networks does alone."""
    together = summary.get("ensemble")
    if not together:
        return []
    notes = ["The logit of an image is the mean of those of all networks, and of all positions of the image."]
    if together["out_of_fold"]:
        notes = [
            "Out of fold: an image is judged by the networks that were not trained on it and chose nothing by it; "
            "location maps are not measured."
        ]
    for number, one in enumerate(together["networks"], start=1):
        figure = f"{value_text(one['auroc'])} {_brackets(interval_text(one['auroc']))}".strip()
        notes.append(f"Network {number} ({one['network']}) alone: AUC {figure}, {one['units']} {UNITS[one['level']]}.")
    return notes


def group_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, list[tuple[str, str, str]]]]:
    """Return what the page says of every subgroup: its name, images and patients, and the TESTED metrics."""
    rows = []
    for name, value, group in subgroup_rows(summary):
        counts = f"{group['images']}, {group['patients']}"
        rows.append((group_name(name, value), counts, [_figure(group[metric]) for metric in TESTED]))
    return rows


def group_notes(summary: Mapping[str, Any]) -> list[str]:
    """Say which differences between subgroups are shown, and which variables are not available."""
    section = summary.get("subgroups", {"by": {}, "differences": []})
    shown = [one for one in section["differences"] if (one["p_corrected"] or 1) <= SIGNIFICANT]
    sentences = [f"{one['sentence'][0].upper()}{one['sentence'][1:]}." for one in shown]
    if section["differences"] and not shown:
        sentences = ["No difference between subgroups is shown, which does not mean that there is none."]
    absent = {name: part["reason"] for name, part in section["by"].items() if "reason" in part}
    names = ", ".join(name.replace("_", " ") for name in absent)
    return sentences + ([f"Not available: {names} ({next(iter(absent.values()))})."] if absent else [])


def threshold_text(section: Mapping[str, Any]) -> str:
    """Say above which probability something is predicted malignant, and who chose that."""
    found = section.get("operating", {})
    if section["threshold"] is None:
        return f"no threshold ({found['on_validation']['reason']})"
    rule = found.get("rule")
    by = f" ({rule}, chosen on the validation split)" if isinstance(rule, str) else ""
    return f"predicted malignant above {section['threshold']:.4g}{by}"


def operating_rows(summary: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return what the page says of operating point and calibration: name, and value, interval and reason by level."""
    sections = [level_section(summary, level) for level in known_levels(summary)]
    if any("operating" not in section for section in sections):
        return []
    points = [section["operating"] for section in sections]
    rows = []
    if isinstance(points[0]["rule"], str):
        rows.append(("Threshold", [_plain(section["threshold"]) for section in sections]))
        chosen = [point["on_validation"] for point in points]
        rows.append(("Sensitivity, specificity on validation", [_pair(point) for point in chosen]))
        rows.append(
            ("Oracle: the threshold that this split would choose", [_plain(p["oracle"]["threshold"]) for p in points])
        )
        rows.append(("Oracle: sensitivity, specificity", [_pair(point["oracle"]) for point in points]))
    names = {
        "sensitivity_at_specificity": f"Sensitivity at a specificity of {points[0]['fixed']:g}",
        "specificity_at_sensitivity": f"Specificity at a sensitivity of {points[0]['fixed']:g}",
        "partial_auc": f"Partial AUC, specificity from {points[0]['fixed']:g} on (a guess: 0.5)",
        "ppv": f"PPV at a prevalence of {points[0]['prevalence']}",
        "npv": f"NPV at a prevalence of {points[0]['prevalence']}",
    }
    rows += [(text, [_figure(point[name]) for point in points]) for name, text in names.items() if name in points[0]]
    calibrated = [section["calibration"] for section in sections]
    names = {"slope": "Calibration slope (best: 1)", "intercept": "Calibration intercept (best: 0)"}
    rows += [(text, [_figure(one[name]) for one in calibrated]) for name, text in names.items()]
    rows.append(("Expected calibration error (best: 0)", [_plain(one["ece"]) for one in calibrated]))
    if before := calibrated[0].get("before"):
        empty = [("", "", "")] * (len(sections) - 1)
        names = {"brier": "Brier score", **names}
        rows += [(f"{text}, before the temperature", [_figure(before[name]), *empty]) for name, text in names.items()]
        rows.append(("Expected calibration error, before the temperature", [_plain(before["ece"]), *empty]))
    return rows


def operating_note(summary: Mapping[str, Any]) -> str:
    """Say who chose the threshold, what temperature the probabilities have gone through, or why there is none."""
    section, notes = summary["calibration"], []
    if "oracle" in summary.get("operating", {}):
        notes.append("The threshold comes from the validation split; the oracle is no figure to expect.")
    if section.get("uncalibrated"):
        notes.append(f"Not calibrated: {section['uncalibrated']}.")
    elif section.get("temperature", 1) != 1:
        notes.append(f"Logits are divided by {section['temperature']:.3f}, the temperature of the validation split.")
    return " ".join(notes)


def _plain(value: float | None) -> tuple[str, str, str]:
    return ("undefined" if value is None else f"{value:.3f}"), "", ""


def _figure(metric: Mapping[str, Any]) -> tuple[str, str, str]:
    return value_text(metric), interval_text(metric), metric.get("reason", "")


def _pair(point: Mapping[str, Any]) -> tuple[str, str, str]:
    if point["sensitivity"] is None:
        return "undefined", "", point.get("reason", "")
    return f"{point['sensitivity']:.3f}, {point['specificity']:.3f}", "", ""


def how_text(summary: Mapping[str, Any]) -> str:
    """Return in one line what was evaluated and how the intervals were drawn."""
    how = summary["interval"]
    return (
        f"{summary['split'] or 'unnamed'} split: {summary['images']} images of {summary['patients']} patients; "
        f"{threshold_text(summary)}; {100 * how['level']:g} % intervals: {how['method']}, "
        f"{how['resamples']} resamples, seed {how['seed']}"
    )


def metrics_text(summary: Mapping[str, Any]) -> str:
    """Return the metrics of a summary (metrics.json) as a small table; what is undefined stands with its reason."""
    rows = [
        (name, value, _brackets(interval) or f"({reason})") for name, value, interval, reason in metric_rows(summary)
    ]
    lines = [f"{how_text(summary)}\n", *plain_table(rows)]
    if known := known_levels(summary)[1:]:
        cells = [["", *map(heading, SHORT)]]
        for level, head in zip(known, level_heads(summary)[1:], strict=True):
            metrics = [level_section(summary, level)[name] for name in SHORT]
            cells.append([head, *(f"{value_text(one)} {_brackets(interval_text(one))}" for one in metrics)])
        lines += ["", *plain_table(cells)]
    lines += level_notes(summary)
    return "\n  ".join(lines)


def _brackets(interval: str) -> str:
    return f"[{interval.replace(' to ', ', ')}]" if interval else ""


def localization_text(summary: Mapping[str, Any]) -> str:
    """Return the localization metrics as a small table for the terminal, one line a method."""
    part = summary["localization"]
    what = (
        f"localization: {part['lesions']} lesions on {part['images_with_lesion']} of {part['images']} images whose "
        f"lesions are known; settings: {part['chosen_on']}"
    )
    rows = [["", *map(heading, LOCALIZATION_NAMES)]]
    for name, cells in method_rows(summary):
        rows.append([name, *(f"{value} [{text.replace(' to ', ', ')}]" if text else value for value, text in cells)])
    sizes = [("", "size of the lesion", "images", "Dice", "pointing"), *size_rows(summary)]
    return "\n  ".join([f"{what}\n", *plain_table(rows), breast_text(summary), *plain_table(sizes)])


def has_lesions(summary: Mapping[str, Any]) -> bool:
    """Whether the images of a summary (metrics.json) show any known lesion."""
    return bool(summary.get("localization", {}).get("images_with_lesion"))


def method_rows(summary: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return for each method its name, and value and interval ("" where there is none) of all LOCALIZATION_NAMES."""
    sections = {summary["localization"]["method"]: summary, **summary.get("localization_compared", {})}
    rows = []
    for method, section in sections.items():
        metrics = [section[name]["mean"] if name == "froc" else section[name] for name in LOCALIZATION_NAMES]
        cells = [(value_text(metric), interval_text(metric)) for metric in metrics]
        rows.append((METHOD_NAMES.get(method, method), cells))
    return rows


def size_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Return for each method and size of lesion: both names, images, Dice and pointing as they are shown."""
    sections = {summary["localization"]["method"]: summary["localization"], **summary.get("localization_compared", {})}
    return [
        (
            METHOD_NAMES.get(method, method),
            size,
            str(found["images"]),
            *map(value_text, (found["dsc"], found["pointing"])),
        )
        for method, section in sections.items()
        for size, found in section.get("by_size", {}).items()
    ]


def breast_text(summary: Mapping[str, Any]) -> str:
    """Say how many lesions are found in either view of their breast, or why they are counted by image."""
    found = summary["localization"].get("by_breast", {})
    if "reason" in found or not found:
        return f"Not by breast: {found['reason']}." if found else ""
    parts = [
        f"{name} {value_text(found[key])} {_brackets(interval_text(found[key]))}".strip()
        for key, name in (("lesion_recall", "lesion recall"), ("froc", "FROC mean"))
    ]
    return f"By breast, a lesion found in either view counts once: {', '.join(parts)} ({found['lesions']} lesions)."


def lambda_note(lam: float) -> str:
    """What there is to know of weights that come from the midst of the ramp; empty after it."""
    if lam == 1:
        return ""
    return (
        f"the tested weights are of an epoch in which lambda had reached {lam:.2f}: to that extent GAP's loss trained "
        "them, not the pooling's (callbacks.lambda_ramp.end_at)"
    )


def write_run_page(
    folder: Path,
    title: str,
    summary: Mapping[str, Any],
    figures: Mapping[str, Path],
    config: Mapping[str, Any],
    leak_text: str,
    versions: Mapping[str, str],
    command: str,
) -> Path:
    """Write report.html into the run folder and return its path.

    Args:
        folder: the run folder; it exists.
        title: of the page.
        summary: what metrics.json holds.
        figures: PNG files by name, shown in this order; those in PLOT_TEXTS have their own texts.
        config: the composed configuration, plain values.
        leak_text: how the data were split, and the leak report.
        versions: of the packages; command: repeats the run.

    Raises:
        LemlightError: the page cannot be written.
    """
    return write_page(
        folder / "report.html",
        "run.html.j2",
        title=title,
        how=how_text(summary),
        note=lambda_note(summary.get("lambda", 1.0)),
        level_heads=level_heads(summary),
        rows=level_rows(summary),
        level_notes=level_notes(summary),
        operating=operating_rows(summary),
        groups=group_rows(summary),
        group_notes=group_notes(summary),
        group_metrics=[heading(name) for name in TESTED],
        operating_note=operating_note(summary),
        localization=method_rows(summary) if has_lesions(summary) else [],
        localization_metrics=[heading(name) for name in LOCALIZATION_NAMES],
        sizes=size_rows(summary) if has_lesions(summary) else [],
        breasts=breast_text(summary) if has_lesions(summary) else "",
        localization_rules=summary.get("localization", {}).get("rules", {}),
        figures=[(*PLOT_TEXTS.get(name, (name, name)), base64_of(path.read_bytes())) for name, path in figures.items()],
        config=json.dumps(config, indent=2, ensure_ascii=False, default=str),
        leak_text=leak_text,
        versions=versions,
        command=command,
    )
