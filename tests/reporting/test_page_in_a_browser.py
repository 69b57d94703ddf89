"""The comparison page in a real headless Chromium, where a script uses it as a person does."""

import html
import json
import re
import shutil
import subprocess

import pytest

from lemlight.report import report
from lemlight.settings import ReportSettings
from tests.layouts.run_folders import write_state, write_sweep

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium, then this runs for real"
)
FLAGS = ["headless=new", "no-sandbox", "disable-gpu", "enable-logging=stderr", "virtual-time-budget=5000", "dump-dom"]
FRAME = """<iframe style="width: {width}px; height: 800px" srcdoc="{page}"></iframe><script>
document.querySelector("iframe").onload = (event) => {{
  const window = event.target.contentWindow, document = window.document;
  const use = () => {{ {script} }};
  event.target.ownerDocument.body.dataset.found = JSON.stringify(use());
}};
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    write_sweep(root / "sweep", ("lem", "gap", "gmp"), (0,))
    write_state(root / "sweep/failed", "failed", "it did")
    settings = {"runs": str(root / "sweep"), "output": str(root / "out"), "resamples": 1000}
    return report(ReportSettings(question=None, to=None, **settings))


def found(page, script, *flags, width=1280):
    """What a script finds in the page, which stands in a frame of this width; the console must stay silent."""
    frame, settings = page.with_name("frame.html"), page.with_name("settings")
    text = html.escape(page.read_text(encoding="utf-8"))
    frame.write_text(FRAME.format(width=width, page=text, script=script), encoding="utf-8")
    options = [f"--{flag}" for flag in [*FLAGS, f"user-data-dir={settings}", *flags]]
    done = subprocess.run([CHROMIUM, *options, frame.as_uri()], capture_output=True, text=True, timeout=60)
    assert "CONSOLE" not in done.stderr, done.stderr
    return json.loads(html.unescape(re.search('data-found="([^"]*)"', done.stdout).group(1)))


def test_a_click_sorts_and_another_turns_it_round(page):
    script = """
    const table = document.querySelector("table.sortable");
    const click = (column) => {
      const header = table.tHead.rows[0].cells[column];
      header.querySelector("button").click();
      const names = Array.from(table.tBodies[0].rows).map((row) => row.cells[0].innerText);
      return [names.join(" "), header.getAttribute("aria-sort")];
    };
    const sorted = [click(2), click(2), click(0), click(0)];
    const status = document.querySelector("[role=status]").textContent;
    table.tBodies[0].rows[0].cells[2].dataset.value = "";
    return [sorted, status, click(2), click(2)];
    """
    sorted_, status, *with_unknown = found(page, script)
    assert sorted_ == [
        ["lem gap gmp", "descending"],  # numbers: the largest first
        ["gmp gap lem", "ascending"],
        ["gap gmp lem", "ascending"],  # names: from a to z
        ["lem gmp gap", "descending"],
    ]
    assert status == "sorted by Method, descending"
    assert [names.split()[-1] for names, _ in with_unknown] == ["lem"] * 2  # an unknown value stays below


def test_the_sliders_go_through_the_mammograms_and_fade_the_overlay(page):
    script = """
    const slide = (name, value) => {
      const slider = document.getElementById(name);
      slider.value = value;
      slider.dispatchEvent(new window.Event("input"));
      const groups = Array.from(document.querySelectorAll(".mammogram"));
      const opacity = window.getComputedStyle(document.querySelector(".picture img")).opacity;
      return [groups.map((each) => each.checkVisibility()), slider.getAttribute("aria-valuetext"), opacity];
    };
    const loaded = Array.from(document.images).map((image) => image.naturalWidth > 0);
    return [loaded, slide("mammogram", 1), slide("mammogram", 3), slide("mammogram", 1), slide("fade", 5)];
    """
    loaded, first, third, again, faded = found(page, script)
    assert len(loaded) > 5
    assert all(loaded)
    assert first == again
    assert (first[0], third[0]) == ([True, False, False], [False, False, True])
    assert third[1].startswith("3 of 3: ")
    assert (first[2], faded[1:]) == ("1", ["5 %", "0.05"])


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True), (320, False)])
def test_the_page_fits_the_window_and_words_can_be_read(page, width, dark):
    scheme = f"blink-settings=preferredColorScheme={int(not dark)}"
    fits, background, contrasts = found(page, CONTRAST, scheme, width=width)
    assert fits
    assert (background != "rgb(255, 255, 255)") == dark
    assert min(contrasts) >= 4.5


def test_without_scripts_all_is_shown(page):
    text = page.read_text(encoding="utf-8")
    assert "hidden" in re.search('<[a-z]+ [^>]*id="sliders"[^>]*>', text).group()
    mammograms = re.findall('<[a-z]+ [^>]*class="mammogram[^>]*>', text)
    assert len(mammograms) == 3
    assert not any("hidden" in each for each in mammograms)


CONTRAST = """
  const luminance = (colour) => {
    const [red, green, blue] = colour.match(/\\d+/g).slice(0, 3).map(Number).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (element) => {
    let behind = element;
    while (window.getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    const colours = [window.getComputedStyle(element).color, window.getComputedStyle(behind).backgroundColor];
    const [one, other] = colours.map(luminance);
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  };
  const words = ["body", "p.soft", "a[href='#table']", "th button", "p.note"];
  const contrasts = words.map((each) => contrast(document.querySelector(each)));
  const fits = document.documentElement.scrollWidth <= window.innerWidth;
  return [fits, window.getComputedStyle(document.body).backgroundColor, contrasts];
"""
