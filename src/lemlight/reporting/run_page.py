"""What a run shows: its metrics as tables on the terminal, and one self-contained page with its figures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lemlight.metrics import CLASSIFICATION_NAMES, FAITHFULNESS_NAMES, LOCALIZATION_NAMES
from lemlight.metrics.levels import RULES, UNITS, known_levels, level_section
from lemlight.metrics.significance import SIGNIFICANT
from lemlight.metrics.subgroups import TESTED, group_name, subgroup_rows
from lemlight.reporting.page import base64_of, write_page
from lemlight.text import brackets, figure_text, heading, interval_text, plain_table, value_text

SIZED = ("dsc", "pointing")  # what stands for each size of lesion
FAITHFUL_HEADS = [name[0].upper() + name[1:] for name in FAITHFULNESS_NAMES.values()]
SHORT = ("auroc", "sensitivity", "specificity")  # of the levels, what fits a terminal
METHOD_NAMES = {
    "importance": "Importance",
    "cam": "CAM",
    "saliency": "Saliency",
    "grad_cam": "Grad-CAM",
    "grad_cam_pp": "Grad-CAM++",
    "gradient": "Gradient",
    "smooth_grad": "SmoothGrad",
    "rollout": "Attention rollout",
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


Cell = tuple[str, str, str]  # value, interval and, where something is undefined, the reason


def cell(metric: Mapping[str, Any]) -> Cell:
    """Return what a table says of one metric of metrics.json."""
    return value_text(metric), interval_text(metric), metric.get("reason", "")


def level_heads(summary: Mapping[str, Any]) -> list[str]:
    """Return a head for each level that a summary has figures of, with the number of its units."""
    heads = []
    for level in known_levels(summary):
        section = level_section(summary, level)
        primary = ", primary" if level == summary.get("primary_level") != "image" else ""
        heads.append(f"By {level} ({section['images' if level == 'image' else 'units']}{primary})")
    return heads


def level_rows(summary: Mapping[str, Any]) -> list[tuple[str, list[Cell]]]:
    """Return for each metric of the classification its name, and what it is at every level."""
    sections = [level_section(summary, level) for level in known_levels(summary)]
    names = [name for name in CLASSIFICATION_NAMES if name in summary]
    return [(heading(name), [cell(section[name]) for section in sections]) for name in names]


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
    primary = summary.get("primary_level")
    if (recorded := summary.get("about", {}).get("primary_level", primary)) != primary:
        notes.append(
            f"Primary is the {primary} by choice of this evaluation: its training had recorded the {recorded}."
        )
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
            "Out of fold: an image is judged, and its location map made, by the networks that were not trained on it "
            "and chose nothing by it."
        ]
    for number, one in enumerate(together["networks"], start=1):
        auc = figure_text(one["auroc"])
        notes.append(f"Network {number} ({one['network']}) alone: AUC {auc}, {one['units']} {UNITS[one['level']]}.")
    return notes


def group_rows(summary: Mapping[str, Any]) -> list[tuple[str, list[Cell]]]:
    """Return what the page says of every subgroup: its name, images and patients, and the TESTED metrics."""
    rows = []
    for name, value, group in subgroup_rows(summary):
        cells = [cell(group[metric]) for metric in TESTED]
        shown = [one if one[1] or not one[2] else ("-", *one[1:]) for one in cells]
        rows.append((group_name(name, value), [(f"{group['images']}, {group['patients']}", "", ""), *shown]))
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


def operating_rows(summary: Mapping[str, Any]) -> list[tuple[str, list[Cell]]]:
    """Return what the page says of operating point and calibration, as `level_rows`."""
    sections = [level_section(summary, level) for level in known_levels(summary)]
    if any("operating" not in section for section in sections):
        return []
    points, calibrated = ([section[name] for section in sections] for name in ("operating", "calibration"))
    rows = []
    if isinstance(points[0]["rule"], str):
        chosen, oracle = ([point[name] for point in points] for name in ("on_validation", "oracle"))
        rows = [
            ("Threshold", [_number(section["threshold"]) for section in sections]),
            ("Sensitivity, specificity on validation", [_pair(point) for point in chosen]),
            ("Oracle: the threshold that this split would choose", [_number(point["threshold"]) for point in oracle]),
            ("Oracle: sensitivity, specificity", [_pair(point) for point in oracle]),
        ]
    fixed, prevalence = f"{points[0]['fixed']:g}", points[0]["prevalence"]
    names = {
        "sensitivity_at_specificity": f"Sensitivity at a specificity of {fixed}",
        "specificity_at_sensitivity": f"Specificity at a sensitivity of {fixed}",
        "partial_auc": f"Partial AUC, specificity from {fixed} on (a guess: 0.5)",
        "ppv": f"PPV at a prevalence of {prevalence}",
        "npv": f"NPV at a prevalence of {prevalence}",
    }
    rows += [(text, [cell(point[name]) for point in points]) for name, text in names.items() if name in points[0]]
    names = {"slope": "Calibration slope (best: 1)", "intercept": "Calibration intercept (best: 0)"}
    rows += [(text, [cell(one[name]) for one in calibrated]) for name, text in names.items()]
    rows.append(("Expected calibration error (best: 0)", [_number(one["ece"]) for one in calibrated]))
    if before := calibrated[0].get("before"):
        names = {"brier": "Brier score", **names}
        raw = [(text, cell(before[name])) for name, text in names.items()]
        raw.append(("Expected calibration error", _number(before["ece"])))
        empty = [("", "", "")] * (len(sections) - 1)
        rows += [(f"{text}, before the temperature", [one, *empty]) for text, one in raw]
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


def _number(value: float | None) -> Cell:
    return cell({"value": value})


def _pair(point: Mapping[str, Any]) -> Cell:
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
    first = [(name, cells[0]) for name, cells in level_rows(summary)]
    rows = [(name, value, brackets(interval) or f"({reason})") for name, (value, interval, reason) in first]
    lines = [f"{how_text(summary)}\n", *plain_table(rows)]
    if known := known_levels(summary)[1:]:
        sections = [level_section(summary, level) for level in known]
        cells = [["", *map(heading, SHORT)]]
        for section, head in zip(sections, level_heads(summary)[1:], strict=True):
            cells.append([head, *(figure_text(section[name]) for name in SHORT)])
        lines += ["", *plain_table(cells)]
    return "\n  ".join([*lines, *level_notes(summary)])


def localization_text(summary: Mapping[str, Any]) -> str:
    """Return the localization metrics as a small table for the terminal, one line a method."""
    part = summary["localization"]
    what = (
        f"localization: {part['lesions']} lesions on {part['images_with_lesion']} of {part['images']} images whose "
        f"lesions are known; settings: {part['chosen_on']}"
    )
    sizes = [("", "size of the lesion", "images", "Dice", "pointing"), *size_rows(summary)]
    parts = [f"{what}\n", *plain_table(method_table("", summary)), breast_text(summary), *plain_table(sizes)]
    if rows := [[name, *map(figure_text, metrics)] for name, metrics in faithful(summary)]:
        parts += ["", *plain_table([["", *FAITHFUL_HEADS], *rows])]
    return "\n  ".join(parts)


def has_lesions(summary: Mapping[str, Any]) -> bool:
    """Whether the images of a summary (metrics.json) show any known lesion."""
    return bool(summary.get("localization", {}).get("images_with_lesion"))


def localized(summary: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Return for each method its name and its LOCALIZATION_NAMES, as metrics.json has them."""
    sections = {summary["localization"]["method"]: summary, **summary.get("localization_compared", {})}
    return [
        (METHOD_NAMES.get(method, method), [part[name].get("mean", part[name]) for name in LOCALIZATION_NAMES])
        for method, part in sections.items()
    ]


def method_table(head: str, summary: Mapping[str, Any]) -> list[list[str]]:
    """Return the localization metrics as rows of cells, a method each, below the heads of the columns."""
    rows = [[name, *map(figure_text, metrics)] for name, metrics in localized(summary)]
    return [[head, *map(heading, LOCALIZATION_NAMES)], *rows]


def size_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return for each method and size of lesion: both names, images, Dice and pointing as they are shown."""
    sections = {summary["localization"]["method"]: summary["localization"], **summary.get("localization_compared", {})}
    return [
        (METHOD_NAMES.get(method, method), size, f"{found['images']}", *(value_text(found[one]) for one in SIZED))
        for method, section in sections.items()
        for size, found in section.get("by_size", {}).items()
    ]


def faithful(summary: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Return for each method its name and its FAITHFULNESS_NAMES, as metrics.json has them; nothing if not measured."""
    first = summary.get("localization", {})
    sections = {first.get("method", ""): first, **summary.get("localization_compared", {})}
    return [
        (METHOD_NAMES.get(method, method), [part["faithfulness"][name] for name in FAITHFULNESS_NAMES])
        for method, part in sections.items()
        if "faithfulness" in part
    ]


def breast_text(summary: Mapping[str, Any]) -> str:
    """Say how many lesions are found in either view of their breast, or why they are counted by image."""
    found = summary["localization"].get("by_breast", {})
    if "reason" in found or not found:
        return f"Not by breast: {found['reason']}." if found else ""
    names = {"lesion_recall": "lesion recall", "froc": "FROC mean"}
    parts = [f"{name} {figure_text(found[key])}" for key, name in names.items()]
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
    **shown: Any,
) -> Path:
    """Write report.html into the run folder and return its path; LemlightError if it cannot be written.

    Args:
        folder: the run folder; it exists.
        title: of the page.
        summary: what metrics.json holds.
        figures: PNG files by name, shown in this order; those in PLOT_TEXTS have their own texts.
        config: the composed configuration, plain values.
        shown: as they are, `leak_text` (how the data were split), `versions` of the packages, and the `command`.
    """
    lesions = localized(summary) if has_lesions(summary) else []
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
        group_heads=["Images, patients", *map(heading, TESTED)],
        operating_note=operating_note(summary),
        localization=[(name, [(*cell(one)[:2], "") for one in metrics]) for name, metrics in lesions],
        localization_heads=[heading(name) for name in LOCALIZATION_NAMES],
        size_heads=["Size of the lesion", "Images", "Dice", "Pointing"],
        sizes=[(name, [(text, "", "") for text in texts]) for name, *texts in (size_rows(summary) if lesions else [])],
        breasts=breast_text(summary) if lesions else "",
        faithful=[(name, [cell(one) for one in metrics]) for name, metrics in faithful(summary)],
        faithful_heads=FAITHFUL_HEADS,
        faithful_how=summary.get("localization", {}).get("faithfulness", {}),
        localization_rules=summary.get("localization", {}).get("rules", {}),
        figures=[(*PLOT_TEXTS.get(name, (name, name)), base64_of(path.read_bytes())) for name, path in figures.items()],
        config=json.dumps(config, indent=2, ensure_ascii=False, default=str),
        **shown,
    )
