"""The card beside a checkpoint: what was trained on what, how well it does, and what it is not for, as Markdown.

Its head is what model hubs read. Nothing in it names a folder, a file or a patient.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import OmegaConf

from lemlight.files import written_aside
from lemlight.metrics import CLASSIFICATION_NAMES, LOCALIZATION_NAMES
from lemlight.reporting.page import TEMPLATES
from lemlight.reporting.run_page import (
    has_lesions,
    how_text,
    lambda_note,
    level_heads,
    level_notes,
    level_rows,
    method_rows,
)
from lemlight.text import heading, markdown_table

CARD = "model_card.md"
HUB_NAMES = {"auroc": "roc_auc", "acc": "accuracy"}  # as model hubs call them; the others by their own


def write_model_card(
    folder: Path,
    title: str,
    summary: Mapping[str, Any],
    config: Mapping[str, Any],
    leak_text: str,
    versions: Mapping[str, str],
    command: str,
) -> Path:
    """Write model_card.md into the folder of the checkpoints and return its path.

    Args:
        folder: of the checkpoints; it exists.
        title: pooling, backbone, seed and data set.
        summary: what metrics.json holds.
        config: the composed configuration, plain values; only what the card says is taken of it.
        leak_text: how the data were split, and the leak report, without names.
        versions: of the packages; command: repeats the run.
    """
    rows = [["Metric", *level_heads(summary)]]
    rows += [
        [name, *(f"{value} [{interval.replace(' to ', ', ')}]" if interval else value for value, interval, _ in cells)]
        for name, cells in level_rows(summary)
    ]
    text = _template().render(
        front=OmegaConf.to_yaml(OmegaConf.create(front_matter(title, summary, config))),
        title=title,
        versions=versions,
        config=_shown(config),
        labels=config["label_names"],
        threshold=f"{summary['threshold']:g}",
        note=lambda_note(summary.get("lambda", 1.0)),
        leak_text=leak_text,
        how=how_text(summary),
        table=markdown_table(rows),
        level_notes=level_notes(summary),
        localization=_localization(summary) if has_lesions(summary) else "",
        command=command,
    )
    path = folder / CARD
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


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


def _shown(config: Mapping[str, Any]) -> dict[str, str]:
    """What the card says of the configuration."""
    choices, prepare = config["choices"], config["dataset"]["prepare"]
    done: Sequence[str] = [
        "cropped to the breast" if prepare["crop"] else "not cropped",
        "chest wall on the left" if prepare["flip"] else "not turned",
        "air is 0",
    ]
    return {
        "backbone_name": str(choices["backbone"]),
        "pooling_name": str(choices["pooling"]),
        "dataset_name": str(choices["dataset"]),
        "size": f"{prepare['height']} x {prepare['width']}",
        "prepared": ", ".join(done),
    }


def _localization(summary: Mapping[str, Any]) -> str:
    rows = [["Method", *map(heading, LOCALIZATION_NAMES)]]
    for name, cells in method_rows(summary):
        rows.append([name, *(f"{value} [{text.replace(' to ', ', ')}]" if text else value for value, text in cells)])
    return markdown_table(rows)


def _template() -> Any:
    loader = FileSystemLoader(TEMPLATES)
    # Markdown, not a page: nothing is escaped, and everything that is filled in is our own text or a checked name
    environment = Environment(loader=loader, autoescape=False, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("model_card.md.j2")
