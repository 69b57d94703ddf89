import pytest

from lemlight.report import report
from lemlight.settings import ReportSettings
from tests.layouts.run_folders import write_state, write_sweep
from tests.reporting.chromium import chromium, find_chromium

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium is installed: apt-get install chromium, then this runs for real"
)
FIRST = "document.querySelector('table.sortable')"
TAB, ENTER, RIGHT, HOME, END = ("Tab", 9), ("Enter", 13), ("ArrowRight", 39), ("Home", 36), ("End", 35)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    write_sweep(root / "sweep", ("lem", "gap", "gmp"), (0,))
    write_state(root / "sweep/failed", "failed", "it did")
    settings = {"runs": str(root / "sweep"), "output": str(root / "out"), "resamples": 1000}
    return report(ReportSettings(question=None, to=None, **settings))


@pytest.fixture(scope="module")
def browser():
    with chromium() as page:
        yield page


@pytest.fixture
def page(browser, path):
    browser.problems.clear()
    browser.requests.clear()
    browser.open(path)
    yield browser
    assert browser.problems == []
    assert {request.partition(":")[0] for request in browser.requests} <= {"file", "data"}
    assert [request for request in browser.requests if request.startswith("file:")] == [path.as_uri()]


def names(page):
    return page.run(f"Array.from({FIRST}.tBodies[0].rows).map(row => row.cells[0].innerText)")


def click(page, column):
    page.run(f"{FIRST}.tHead.rows[0].cells[{column}].querySelector('button').click()")
    return names(page), page.run(f"{FIRST}.tHead.rows[0].cells[{column}].getAttribute('aria-sort')")


def test_a_click_sorts_and_another_turns_it_round(page):
    assert click(page, 2) == (["lem", "gap", "gmp"], "descending")  # numbers: the largest first
    assert click(page, 2) == (["gmp", "gap", "lem"], "ascending")
    assert page.run("document.querySelector('[role=status]').textContent") == "sorted by AUC, ascending"
    assert click(page, 0) == (["gap", "gmp", "lem"], "ascending")  # names: from a to z
    assert click(page, 0) == (["lem", "gmp", "gap"], "descending")
    page.run(f"{FIRST}.tBodies[0].rows[0].cells[2].dataset.value = ''")
    for _ in range(2):
        assert click(page, 2)[0][-1] == "lem"  # an unknown value stays below


def test_the_keyboard_sorts(page):
    page.run(f"{FIRST}.tHead.rows[0].cells[1].querySelector('button').focus()")
    page.press(*TAB)
    page.press(*ENTER, text="\r")
    assert names(page) == ["lem", "gap", "gmp"]
    assert page.run("document.activeElement.textContent") == "AUC"  # the focus stays


def shown(page):
    return page.run("Array.from(document.querySelectorAll('.mammogram')).map(each => each.checkVisibility())")


def test_the_keyboard_goes_through_the_mammograms(page):
    assert shown(page) == [True, False, False]
    page.run("document.getElementById('mammogram').focus()")
    page.press(*RIGHT)
    assert shown(page) == [False, True, False]
    page.press(*END)
    assert shown(page) == [False, False, True]
    assert page.run("document.getElementById('mammogram-shown').textContent").startswith("3 of 3: ")
    assert page.run("document.getElementById('mammogram').getAttribute('aria-valuetext')").startswith("3 of 3: ")
    page.press(*HOME)
    assert shown(page) == [True, False, False]


def test_the_overlay_fades(page):
    opacity = "getComputedStyle(document.querySelector('.picture img')).opacity"
    assert page.run(opacity) == "1"
    page.run("document.getElementById('fade').focus()")
    page.press(*HOME)
    assert page.run(opacity) == "0"
    page.press(*RIGHT)
    assert float(page.run(opacity)) == pytest.approx(0.05)
    assert page.run("document.getElementById('fade-shown').textContent") == "5 %"


def test_every_picture_is_there(page):
    assert page.run("Array.from(document.images).every(image => image.naturalWidth > 0)")
    assert page.run("document.images.length") > 5
    assert 'url("data:' in page.run("getComputedStyle(document.querySelector('.m1')).backgroundImage")
    assert 'url("data:' in page.run("getComputedStyle(document.querySelector('.m1'), '::after').backgroundImage")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True), (320, False)])
def test_the_page_fits_the_window_and_words_can_be_read(page, path, width, dark):
    page.requests.clear()
    page.open(path, width=width, height=800, dark=dark)
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.run("window.innerWidth") == width
    bright = page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert bright != dark
    for words in ("body", "p.soft", "a[href='#table']", "th button", "p.note"):
        assert page.run(CONTRAST.replace("WORDS", words)) >= 4.5, words


def test_a_screen_reader_is_told_all(page):
    told = page.accessible()
    names = set(told)
    assert ("slider", "Mammogram") in names
    assert ("slider", "Strength of the overlay") in names
    assert ("main", "") in names
    assert ("navigation", "Sections") in names
    assert ("button", "AUC ↕") in names or ("button", "AUC") in names
    assert all(name for role, name in told if role in ("image", "button", "slider", "link", "region"))
    assert [role for role, _ in told].count("table") >= 4


def test_without_scripts_all_is_shown(browser, path):
    browser.problems.clear()
    browser.open(path, script=False)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert shown(browser) == [True, True, True]
    assert browser.run("document.querySelectorAll('th button').length") == 0
    assert not browser.run("document.getElementById('sliders').checkVisibility()")
    assert browser.problems == []


CONTRAST = """(() => {
  const element = document.querySelector("WORDS");
  const luminance = (colour) => {
    const [red, green, blue] = colour.match(/\\d+/g).slice(0, 3).map(Number).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  let behind = element;
  while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
  const [one, other] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(luminance);
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
})()"""
