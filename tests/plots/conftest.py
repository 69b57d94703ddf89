import pytest

from lemlight.plots import curves, sheets


@pytest.fixture
def drawn(monkeypatch):
    """The figures instead of files, to be looked at from inside."""
    figures = []
    for chapter in (curves, sheets):
        monkeypatch.setattr(chapter, "save", lambda figure, path: figures.append(figure) or path)
    return figures


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend_texts(legend):
    return [text.get_text() for text in legend.get_texts()]
