from html.parser import HTMLParser

import pytest

from lemlight.reporting.comparison.methods import compare_runs
from lemlight.reporting.comparison.runs import find_runs
from tests.layouts.run_folders import write_sweep

VOID = {"meta", "img", "br", "link", "input"}


class Reader(HTMLParser):
    """Collects tags and text of a page, and checks that every tag is closed in order."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="session")
def read_page():
    """Parse a page that asks nothing of any server: all that it shows is inside of it."""

    def read(text):
        page = Reader(text)
        for _, attributes in page.tags:
            for name in ("src", "action", "srcset", "poster", "data"):
                assert (attributes.get(name) or "data:").startswith("data:")
            assert (attributes.get("href") or "#").startswith(("#", "data:"))
        assert not any(word in text for word in ("@import", "http:", "https:"))
        assert any("default-src 'none'" in attributes.get("content", "") for attributes in page.of("meta"))
        return page

    return read


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """The folder of a sweep over two poolings and two seeds; not to be changed."""
    return write_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="session")
def compared_sweep(sweep):
    return compare_runs(find_runs(sweep), 1000)
