"""What a run shows: tables of its metrics, on the terminal, on one self-contained page, and on its checkpoint's card.

The card is Markdown, its head what model hubs read; nothing in it names a folder, a file or a patient.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lemlight.metrics import CLASSIFICATION_NAMES, FAITHFULNESS_NAMES, LOCALIZATION_NAMES
from lemlight.metrics.levels import RULES, UNITS, level_sections
from lemlight.metrics.significance import SIGNIFICANT
from lemlight.metrics.subgroups import TESTED, group_name, subgroup_rows
from lemlight.reporting.page import base64_of, write_page
from lemlight.text import Table, brackets, cells_text, figure_text, heading, interval_text, plain_table, value_text

SHORT = ("auroc", "sensitivity", "specificity")  # of the levels, what fits a terminal
HUB_NAMES = {"auroc": "roc_auc", "acc": "accuracy"}  # as model hubs call them; the others by their own
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


def levels_table(summary: Mapping[str, Any]) -> Table:
    """Return each metric of the classification at every level that a summary (metrics.json) has figures of."""
    sections = level_sections(summary).values()
    names = [name for name in CLASSIFICATION_NAMES if name in summary]
    rows = [[heading(name), *(section[name] for section in sections)] for name in names]
    return [["Metric", *level_heads(summary)], *rows]


def level_heads(summary: Mapping[str, Any]) -> list[str]:
    """Return a head for each level, with the number of its units."""
    heads = []
    for level, section in level_sections(summary).items():
        primary = ", primary" if level == summary.get("primary_level") != "image" else ""
        heads.append(f"By {level} ({section['images' if level == 'image' else 'units']}{primary})")
    return heads


def level_notes(summary: Mapping[str, Any]) -> list[str]:
    """Say how images make the other levels, and which levels the data do not define."""
    sections, known = summary.get("levels", {}), list(level_sections(summary))[1:]
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


def groups_table(summary: Mapping[str, Any]) -> Table:
    """Return images, patients and the TESTED metrics of every subgroup."""
    rows = [
        [group_name(name, value), f"{group['images']}, {group['patients']}", *(group[metric] for metric in TESTED)]
        for name, value, group in subgroup_rows(summary)
    ]
    return [["Subgroup", "Images, patients", *map(heading, TESTED)], *rows]


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


def operating_table(summary: Mapping[str, Any]) -> Table:
    """Return operating point and calibration at every level; nothing of a run from before there were any."""
    sections = list(level_sections(summary).values())
    if any("operating" not in section for section in sections):
        return []
    points, calibrated = ([section[name] for section in sections] for name in ("operating", "calibration"))
    rows: Table = []
    if isinstance(points[0]["rule"], str):
        chosen, oracle = ([point[name] for point in points] for name in ("on_validation", "oracle"))
        rows = [
            ["Threshold", *(_metric(section["threshold"]) for section in sections)],
            ["Sensitivity, specificity on validation", *map(_pair, chosen)],
            ["Oracle: the threshold that this split would choose", *(_metric(point["threshold"]) for point in oracle)],
            ["Oracle, no figure to expect: sensitivity, specificity", *map(_pair, oracle)],
        ]
    fixed, prevalence = f"{points[0]['fixed']:g}", points[0]["prevalence"]
    names = {
        "sensitivity_at_specificity": f"Sensitivity at a specificity of {fixed}",
        "specificity_at_sensitivity": f"Specificity at a sensitivity of {fixed}",
        "partial_auc": f"Partial AUC, specificity from {fixed} on (a guess: 0.5)",
        "ppv": f"PPV at a prevalence of {prevalence}",
        "npv": f"NPV at a prevalence of {prevalence}",
    }
    rows += [[text, *(point[name] for point in points)] for name, text in names.items() if name in points[0]]
    names = {
        "slope": "Calibration slope (best: 1)",
        "intercept": "Calibration intercept (best: 0)",
        "ece": "Expected calibration error (best: 0)",
    }
    rows += [[text, *(_metric(one[name]) for one in calibrated)] for name, text in names.items()]
    empty = [""] * (len(sections) - 1)
    found = {"value": calibrated[0].get("temperature", 1), "reason": calibrated[0].get("uncalibrated", "")}
    if found["reason"] or found["value"] != 1:
        found["value"] = None if found["reason"] else found["value"]
        rows.append(["Temperature, by which logits are divided", found, *empty])
    if before := calibrated[0].get("before"):
        names = {"brier": "Brier score", **names}
        rows += [[f"{text}, before the temperature", _metric(before[name]), *empty] for name, text in names.items()]
    return [["Metric", *level_heads(summary)], *rows]


def _metric(found: Mapping[str, Any] | float | None) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {"value": found}


def _pair(point: Mapping[str, Any]) -> str | Mapping[str, Any]:
    if point["sensitivity"] is None:
        return {"value": None, "reason": point.get("reason", "")}
    return f"{point['sensitivity']:.3f}, {point['specificity']:.3f}"


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
        [name, value_text(image), brackets(interval_text(image)) or f"({image['reason']})"]
        for name, image, *_ in levels_table(summary)[1:]
    ]
    lines = [f"{how_text(summary)}\n", *plain_table(rows)]
    if above := list(level_sections(summary).values())[1:]:
        levels = [[section[name] for name in SHORT] for section in above]
        rows = [[head, *level] for head, level in zip(level_heads(summary)[1:], levels, strict=True)]
        lines += ["", *plain_table(cells_text([["", *map(heading, SHORT)], *rows]))]
    return "\n  ".join([*lines, *level_notes(summary)])


def localization_text(summary: Mapping[str, Any]) -> str:
    """Return the localization metrics as a small table for the terminal, one line a method."""
    part = summary["localization"]
    what = (
        f"localization: {part['lesions']} lesions on {part['images_with_lesion']} of {part['images']} images whose "
        f"lesions are known; settings: {part['chosen_on']}"
    )
    parts = [f"{what}\n", *plain_table(cells_text(methods_table(summary))), breast_text(summary)]
    parts += plain_table(cells_text(sizes_table(summary)))
    if rows := faithful_table(summary):
        parts += ["", *plain_table(cells_text(rows))]
    return "\n  ".join(parts)


def has_lesions(summary: Mapping[str, Any]) -> bool:
    """Whether the images of a summary (metrics.json) show any known lesion."""
    return bool(summary.get("localization", {}).get("images_with_lesion"))


def _by_method(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The figures of every localization method by its name; those of the first lie at two places of metrics.json."""
    if "localization" not in summary:
        return {}
    first = summary["localization"]
    sections = {first["method"]: {**summary, **first}, **summary.get("localization_compared", {})}
    return {METHOD_NAMES.get(method, method): section for method, section in sections.items()}


def methods_table(summary: Mapping[str, Any]) -> Table:
    """Return the LOCALIZATION_NAMES of every method."""
    rows = [
        [method, *(section[name].get("mean", section[name]) for name in LOCALIZATION_NAMES)]
        for method, section in _by_method(summary).items()
    ]
    return [["Method", *map(heading, LOCALIZATION_NAMES)], *rows]


def sizes_table(summary: Mapping[str, Any]) -> Table:
    """Return images, Dice and pointing of every method and size of lesion."""
    rows = [
        [method, size, f"{found['images']}", value_text(found["dsc"]), value_text(found["pointing"])]
        for method, section in _by_method(summary).items()
        for size, found in section.get("by_size", {}).items()
    ]
    return [["Method", "Size of the lesion", "Images", "Dice", "Pointing"], *rows]


def faithful_table(summary: Mapping[str, Any]) -> Table:
    """Return the FAITHFULNESS_NAMES of every method; nothing where they were not measured."""
    rows = [
        [method, *(section["faithfulness"][name] for name in FAITHFULNESS_NAMES)]
        for method, section in _by_method(summary).items()
        if "faithfulness" in section
    ]
    heads = [name[0].upper() + name[1:] for name in FAITHFULNESS_NAMES.values()]
    return [["Method", *heads], *rows] if rows else []


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


def _on_both(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What page and card say of a summary."""
    return {
        "how": how_text(summary),
        "note": lambda_note(summary.get("lambda", 1.0)),
        "levels": levels_table(summary),
        "level_notes": level_notes(summary),
        "group_notes": group_notes(summary),
        "localization": methods_table(summary) if has_lesions(summary) else [],
    }


def write_run_page(
    folder: Path, summary: Mapping[str, Any], figures: Mapping[str, Path], config: Mapping[str, Any], **shown: Any
) -> Path:
    """Write report.html into the run folder and return its path; LemlightError if it cannot be written.

    Args:
        folder: the run folder; it exists.
        summary: what metrics.json holds.
        figures: PNG files by name, shown in this order; those in PLOT_TEXTS have their own texts.
        config: the composed configuration, plain values.
        shown: as they are, `title`, `leak_text` (how the data were split), `versions` of the packages, and `command`.
    """
    return write_page(
        folder / "report.html",
        "run.html.j2",
        **_on_both(summary),
        operating=operating_table(summary),
        groups=groups_table(summary),
        sizes=sizes_table(summary),
        breasts=breast_text(summary) if has_lesions(summary) else "",
        faithful=faithful_table(summary),
        part=summary.get("localization", {}),
        figures=[(*PLOT_TEXTS.get(name, (name, name)), base64_of(path.read_bytes())) for name, path in figures.items()],
        config=json.dumps(config, indent=2, ensure_ascii=False, default=str),
        **shown,
    )


def write_model_card(
    folder: Path, title: str, summary: Mapping[str, Any], config: Mapping[str, Any], **shown: Any
) -> Path:
    """Write model_card.md into the folder of the checkpoints, which exists, and return its path.

    `title` names pooling, backbone, seed and data set; the others are those of `write_run_page`. Of the configuration
    only what the card says is taken, and `leak_text` must hold no names.
    """
    head, *groups = groups_table(summary)
    measured = [row for row in groups if any(metric["value"] is not None for metric in row[2:])]
    prepare = config["dataset"]["prepare"]
    crop, flip = "cropped to the breast" if prepare["crop"] else "not cropped", prepare["flip"]
    return write_page(
        folder / "model_card.md",
        "model_card.md.j2",
        **_on_both(summary),
        front=OmegaConf.to_yaml(OmegaConf.create(front_matter(title, summary, config))),
        title=title,
        choices=config["choices"],
        size=f"{prepare['height']} x {prepare['width']}",
        prepared=f"{crop}, {'chest wall on the left' if flip else 'not turned'}, air is 0",
        labels=config["label_names"],
        threshold=threshold_text(summary),
        subgroups=[head, *measured] if measured else [],
        small=[row[0] for row in groups if row not in measured],
        **shown,
    )


def front_matter(title: str, summary: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what model hubs read: library, task, tags, and the metrics of the images; what is undefined stays away."""
    metrics = [
        {"type": HUB_NAMES.get(key, key), "name": name, "value": round(float(summary[key]["value"]), 4)}
        for key, name in CLASSIFICATION_NAMES.items()
        if key in summary and summary[key]["value"] is not None
    ]
    dataset = str(config["choices"]["dataset"])
    tested = {"type": dataset, "name": dataset, "split": str(summary["split"])}
    results = [{"task": {"type": "image-classification"}, "dataset": tested, "metrics": metrics}]
    return {
        "library_name": "lemlight",
        "pipeline_tag": "image-classification",
        "license": "other",
        "tags": ["mammography", "weakly-supervised", "local-extremum-mapping", "research-only"],
        "datasets": [dataset],
        "model-index": [{"name": title, "results": results}],
    }
