"""What README and docs show: every command composes, every choice is told of, every setting exists."""

import importlib.util
import inspect
import re
import shlex
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

from lemlight import cli
from lemlight.building import check_settings
from lemlight.cli import conf_dir
from lemlight.data.splits import split_table
from tests.composing import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "docs").rglob("*.txt"))]
NAMES = {"dataset=NAME": "dataset=folder", "experiment=NAME": "experiment=pooling"}
FLAGS = {"-m", "...", "--cfg", "job", "--help"}
COMMAND = re.compile(r"python -m lemlight\.\w+[^`\n]*")
EXPORTED = re.compile(r"\b(LEMLIGHT_[A-Z]+)=DIR")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


def commands(text):
    """The command lines in the code of a page, each once."""
    code = text if not text.lstrip().startswith("#") else "\n".join(CODE.findall(text))
    lines = code.replace("\\\n", " ")
    return list(dict.fromkeys(" ".join(found.split("  #")[0].split()) for found in COMMAND.findall(lines)))


@pytest.fixture(scope="module")
def configs():
    cli.register_resolvers()
    with initialize_config_dir(config_dir=conf_dir(), version_base="1.3"):
        yield


def everything():
    return sorted({command for page in PAGES for command in commands(page.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("command", everything())
def test_every_command_shown_composes(command, configs, monkeypatch):
    for text in (page.read_text(encoding="utf-8") for page in PAGES):
        for name in EXPORTED.findall(text) if command in commands(text) else ():
            monkeypatch.setenv(name, "DIR")
    program, *words = shlex.split(command.removeprefix("python -m lemlight."))
    words = [NAMES.get(word, word) for word in words if word not in FLAGS]
    if not launcher_is_there(words):
        words = [word for word in words if "hydra" not in word.partition("=")[0]]
    first, axes = first_values(words)
    config = compose(program, first, return_hydra_config=True)
    axes |= {key: str(value).split(",") for key, value in (config.hydra.sweeper.params or {}).items()}
    for group, choices in axes.items():
        if (Path(conf_dir()) / group).is_dir():
            assert all((Path(conf_dir()) / group / f"{choice}.yaml").is_file() for choice in choices), (group, choices)
    with open_dict(config):
        del config["hydra"]
        config["output"] = "RUN"  # Hydra knows it in a run only
    check_settings(OmegaConf.to_container(config, resolve=True), SETTINGS[program])


def launcher_is_there(words):
    plugins = {"ray": "ray", "submitit_slurm": "submitit", "joblib": "joblib"}
    chosen = [plugins[word.partition("=")[2]] for word in words if word.startswith("hydra/launcher=")]
    return all(
        importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec(f"hydra_plugins.hydra_{name}_launcher")
        for name in chosen
    )


def first_values(words):
    """The overrides of the first job of a sweep, and the values of every axis."""
    first, axes = [], {}
    for override in OverridesParser.create().parse_overrides(words):
        if override.is_sweep_override():
            values = [str(value) for value in override.sweep_string_iterator()]
            axes[override.key_or_group] = values
            first.append(f"{override.key_or_group}={values[0]}")
        else:
            first.append(override.input_line)
    return first, axes


def test_nothing_that_can_be_chosen_is_forgotten():
    assert len(everything()) > 60
    pages = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
    for name in choices("dataset"):
        assert f"dataset={name} " in pages["data_sets.md"]
        assert (ROOT / "docs" / "prepare_pages" / f"{name}.txt").read_text(encoding="utf-8").startswith("$ python -m")
    told = {
        "method.md": choices("pooling"),
        "localization.md": choices_in("localization/methods"),
        "experiments.md": choices("experiment"),
        "data_sets.md": get_args(get_type_hints(inspect.unwrap(split_table))["scheme"]),
    }
    groups = {path.name for path in Path(conf_dir()).iterdir() if path.is_dir()} - {"hydra", "shared", "source"}
    for group in groups - {"experiment", "localization"}:
        assert not [name for name in choices(group) if f"`{name}`" not in pages["choices.md"]], group
    for page, names in told.items():
        assert names
        assert not [name for name in names if f"| `{name}`" not in pages[page] and f", `{name}`" not in pages[page]]


def choices_in(group):
    return list(OmegaConf.load(Path(conf_dir()) / group / "default.yaml"))


def choices(group):
    return [path.stem for path in (Path(conf_dir()) / group).glob("*.yaml")]


def settings_of(rows):
    """The settings in the second cells of rows; `.name` stands beside another one of its section."""
    full = []
    for key in re.findall(r"`([a-z_.]+)`", " ".join(row.split("|")[2] for row in rows)):
        full.append(full[-1].rpartition(".")[0] + key if key.startswith(".") else key)
    return full


def test_every_setting_of_the_table_of_readings_exists_and_the_search_varies_only_what_is_open(configs):
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8").partition("## Readings")[2]
    rows = [row for row in text.splitlines() if row.startswith("|")]
    composed = {name: compose("train", [f"pooling={name}", "scheduler=step"]) for name in ("lem", "lse", "max_min")}
    assert len(settings_of(rows)) > 15
    for key in settings_of(rows):
        assert any(exists(config, key) for config in composed.values()), key
    left_open = settings_of(row for row in rows if re.search("open|reading", row.split("|")[4]))
    searched = list(OmegaConf.load(Path(conf_dir()) / "experiment" / "search.yaml").hydra.sweeper.params)
    assert len(searched) > 5
    assert not [key for key in searched if not any(f"{key}.".startswith(f"{one}.") for one in left_open)]


def exists(config, key):
    for part in key.split("."):
        if part not in config:
            return False
        config = config[part]
    return True


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md"], ids=lambda page: page.name)
def test_every_row_of_a_table_has_the_cells_of_its_heading(page):
    """A bar within a formula or a command ends the cell where the page is drawn."""
    heading = 0
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert cells in (0, heading or cells), line
        heading = cells and (heading or cells)
