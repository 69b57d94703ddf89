"""The site builds without a warning and asks no other server; its links lead somewhere, its commands compose."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args
from urllib.parse import unquote, urlsplit

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import open_dict

from lemlight import cli
from lemlight.config.check import check
from lemlight.config.commands import (
    EvaluateConfig,
    ExportConfig,
    LocalizeConfig,
    PrepareCommandConfig,
    ReportConfig,
    TrainConfig,
)
from lemlight.config.conf_dir import conf_dir
from lemlight.config.data import SplitConfig
from lemlight.config.localization import Method

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "docs").rglob("*.txt"))]
SCHEMAS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "localize": LocalizeConfig,
    "prepare": PrepareCommandConfig,
    "report": ReportConfig,
}
NAMES = {"dataset=NAME": "dataset=folder", "experiment=NAME": "experiment=pooling"}
FLAGS = {"-m", "...", "--cfg", "job", "--help"}
LOADED = {  # what a browser fetches by itself
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "embed": ("src",),
    "use": ("href", "xlink:href"),
}
FROM_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")
COMMAND = re.compile(r"python -m lemlight\.\w+[^`\n]*")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


class Page(HTMLParser):
    """What a page loads, links to, and can be linked to; its style sheets."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links, self.ids, self.classes, self.styles = [], [], set(), set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        if not (tag == "link" and values.get("rel") in ("canonical", "next", "prev", "edit")):
            self.loaded += [values[name] for name in LOADED.get(tag, ()) if name in values]
        self.links += [values["href"]] if tag == "a" and "href" in values else []
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        self.classes |= set(values.get("class", "").split())
        self.styles += values.get("style", "")
        self.in_style = tag == "style"

    def handle_data(self, data):
        self.styles += data if getattr(self, "in_style", False) else ""


def elsewhere(addresses):
    return [address for address in addresses if urlsplit(address).netloc]


def commands(text):
    """The command lines in the code of a page, each once."""
    code = text if not text.lstrip().startswith("#") else "\n".join(CODE.findall(text))
    lines = code.replace("\\\n", " ")
    return list(dict.fromkeys(" ".join(found.split("  #")[0].split()) for found in COMMAND.findall(lines)))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for name in ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers.python", "latex2mathml"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("site")
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}, folder


def test_the_site_holds_every_page_and_the_reference(site):
    pages, folder = site
    wanted = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert wanted <= {path.relative_to(folder) for path in pages}
    assert "lemlight.models.lem.sparse_loss" in pages[folder / "reference" / "models.html"].ids


def test_the_site_asks_no_other_server(site):
    pages, folder = site
    for path, page in pages.items():
        assert not elsewhere(page.loaded), path
        assert not FROM_STYLE.findall(page.styles), path
        assert "mermaid" not in page.classes, "the theme would fetch mermaid from a server"
        assert not elsewhere(link for link in page.links if "github.com" in link), "the theme would ask GitHub"
    for sheet in folder.rglob("*.css"):
        assert not FROM_STYLE.findall(sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.org/katex.js"></script>',
        '<script src="//cdn.org/katex.js"></script>',
        '<link rel="stylesheet" href="https://fonts.org/css">',
        '<link rel="preconnect" href="https://fonts.org">',
        '<img src="https://badges.org/a.svg">',
    ],
)
def test_another_server_would_be_found(html):
    assert elsewhere(Page(html).loaded)


@pytest.mark.parametrize("style", ['@import "https://fonts.org"', "a { b: url(//fonts.org/c) }", "url('http://d.org')"])
def test_another_server_in_a_style_would_be_found(style):
    assert FROM_STYLE.findall(Page(f"<style>{style}</style>").styles)


def test_formulas_are_drawn_by_the_browser(site):
    _, folder = site
    text = (folder / "method.html").read_text(encoding="utf-8")
    assert text.count("<math") > 30
    plain = re.sub(r"<(script|code|pre).*?</\1>", "", text, flags=re.DOTALL)
    assert "$" not in plain
    assert "arithmatex" not in plain
    assert not re.search(r"\\[a-z]+", plain), "a command of TeX that was not understood"


def test_links_inside_the_site_lead_somewhere(site):
    pages, folder = site
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.relative_to(folder)}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].ids, f"{path.relative_to(folder)}: {link}"


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not urlsplit(link).scheme and not link.startswith("#"):
            assert (ROOT / link.partition("#")[0]).exists(), link


@pytest.fixture(scope="module")
def configs():
    cli.register_resolvers()
    with initialize_config_dir(config_dir=conf_dir(), version_base="1.3"):
        yield


def everything():
    return sorted({command for page in PAGES for command in commands(page.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("command", everything())
def test_every_command_shown_composes(command, configs):
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
    check(config, SCHEMAS[program])


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


def test_commands_are_found_in_code_and_nowhere_else():
    code = "`python -m lemlight.train a=1`\n\n```\npython -m lemlight.prepare b=2 \\\n  c=3  # why\n```\n"
    text = f"# A\n\npython -m lemlight.no\n\n{code}"
    assert commands(text) == ["python -m lemlight.train a=1", "python -m lemlight.prepare b=2 c=3"]
    assert len(everything()) > 60


def test_nothing_that_can_be_chosen_is_forgotten():
    pages = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
    for name in choices("dataset"):
        assert f"dataset={name} " in pages["data_sets.md"]
        assert (ROOT / "docs" / "prepare_pages" / f"{name}.txt").read_text(encoding="utf-8").startswith("$ python -m")
    told = {
        "method.md": choices("pooling"),
        "localization.md": get_args(Method),
        "experiments.md": choices("experiment"),
        "data_sets.md": get_args(SplitConfig.model_fields["scheme"].annotation),
    }
    for page, names in told.items():
        assert names
        assert not [name for name in names if f"| `{name}`" not in pages[page] and f", `{name}`" not in pages[page]]


def choices(group):
    return [path.stem for path in (Path(conf_dir()) / group).glob("*.yaml")]


def test_every_setting_of_the_table_of_readings_exists(configs):
    rows = (ROOT / "docs" / "method.md").read_text(encoding="utf-8").partition("## Readings")[2]
    composed = {name: compose("train", [f"pooling={name}", "scheduler=step"]) for name in ("lem", "lse", "max_min")}
    cells = [row.split("|")[2] for row in rows.splitlines() if row.startswith("|")]
    full = []
    for key in re.findall(r"`([a-z_.]+)`", " ".join(cells)):
        full.append(full[-1].rpartition(".")[0] + key if key.startswith(".") else key)
    assert len(full) > 15
    for key in full:
        assert any(exists(config, key) for config in composed.values()), key


def exists(config, key):
    for part in key.split("."):
        if part not in config:
            return False
        config = config[part]
    return True
