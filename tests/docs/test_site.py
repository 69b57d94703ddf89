"""The site builds without a warning and asks no other server; its links and those of the README lead somewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOADED = {"src", "srcset", "poster", "data", "xlink:href"}  # what a browser fetches by itself
FROM_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")


class Page(HTMLParser):
    """What a page loads, links to, and can be linked to; its style sheets."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links, self.ids, self.classes, self.styles = [], [], set(), set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self.loaded += [value for name, value in values.items() if name in LOADED]
        if tag in ("link", "use") and values.get("rel") not in ("canonical", "next", "prev", "edit"):
            self.loaded.append(values.get("href", ""))
        self.links += [values["href"]] if tag == "a" and "href" in values else []
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        self.classes |= set(values.get("class", "").split())
        self.styles += values.get("style", "")
        self.in_style = tag == "style"

    def handle_data(self, data):
        self.styles += data if getattr(self, "in_style", False) else ""


def elsewhere(addresses):
    return [address for address in addresses if urlsplit(address).netloc]


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
        assert "md-source" not in page.classes, "the theme would ask GitHub for the stars of a repository"
    for sheet in folder.rglob("*.css"):
        assert not FROM_STYLE.findall(sheet.read_text(encoding="utf-8")), sheet


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
