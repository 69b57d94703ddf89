"""The card beside a checkpoint: what was trained on what, how well it does, and what it is not for, as Markdown.

Its head is what model hubs read. Nothing in it names a folder, a file or a patient.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lemlight.metrics import CLASSIFICATION_NAMES
from lemlight.metrics.levels import known_levels, level_section
from lemlight.metrics.subgroups import TESTED, group_name, subgroup_rows
from lemlight.reporting.page import write_page
from lemlight.reporting.run_page import (
    group_notes,
    has_lesions,
    how_text,
    lambda_note,
    level_heads,
    level_notes,
    method_table,
    threshold_text,
)
from lemlight.text import figure_text, heading, markdown_table

CARD = "model_card.md"
HUB_NAMES = {"auroc": "roc_auc", "acc": "accuracy"}  # as model hubs call them; the others by their own


def write_model_card(
    folder: Path, title: str, summary: Mapping[str, Any], config: Mapping[str, Any], **shown: Any
) -> Path:
    """Write model_card.md into the folder of the checkpoints, which exists, and return its path.

    `title` names pooling, backbone, seed and data set; the others are those of `write_run_page`. Of the configuration
    only what the card says is taken, and `leak_text` must hold no names.
    """
    sections = [level_section(summary, level) for level in known_levels(summary)]
    rows = [
        [heading(name), *(figure_text(section[name]) for section in sections)]
        for name in CLASSIFICATION_NAMES
        if name in summary
    ]
    choices, prepare = config["choices"], config["dataset"]["prepare"]
    crop, flip = "cropped to the breast" if prepare["crop"] else "not cropped", prepare["flip"]
    return write_page(
        folder / CARD,
        "model_card.md.j2",
        front=OmegaConf.to_yaml(OmegaConf.create(front_matter(title, summary, config))),
        title=title,
        choices=choices,
        size=f"{prepare['height']} x {prepare['width']}",
        prepared=f"{crop}, {'chest wall on the left' if flip else 'not turned'}, air is 0",
        labels=config["label_names"],
        threshold=threshold_text(summary),
        note=lambda_note(summary.get("lambda", 1.0)),
        how=how_text(summary),
        table=markdown_table([["Metric", *level_heads(summary)], *rows]),
        level_notes=level_notes(summary),
        subgroups=subgroups_text(summary),
        group_notes=group_notes(summary),
        localization=markdown_table(method_table("Method", summary)) if has_lesions(summary) else "",
        **shown,
    )


def subgroups_text(summary: Mapping[str, Any]) -> str:
    """Return a table of the subgroups that have a figure; those that are too small for any are only named."""
    rows, small = [["Subgroup", "Images, patients", *map(heading, TESTED)]], []
    for variable, value, group in subgroup_rows(summary):
        if all(group[metric]["value"] is None for metric in TESTED):
            small.append(group_name(variable, value))
        else:
            cells = ["-" if group[metric]["value"] is None else figure_text(group[metric]) for metric in TESTED]
            rows.append([group_name(variable, value), f"{group['images']}, {group['patients']}", *cells])
    table = markdown_table(rows) if len(rows) > 1 else ""
    return table + (f"\nToo small for a figure: {', '.join(small)}.\n" if small else "")


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
