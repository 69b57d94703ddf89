"""The errors that a user can cause: each message says what is wrong, where, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class LemlightError(Exception):
    """A user's mistake or a broken input; commands print its message without a traceback and exit with 2."""


class ImageError(LemlightError):
    """One image that cannot be used; preparing lists it among those left out and goes on."""


@contextmanager
def as_image_error(path: Path, words: str) -> Iterator[None]:
    """Turn whatever a library raises about a broken file into an ImageError; `{}` in `words` becomes its kind.

    Its own text stays away: it may hold values of a header, maybe a patient's.
    """
    try:
        yield
    except (MemoryError, ImageError):
        raise
    except Exception as error:
        why = isinstance(error, OSError) and error.strerror  # a decoder's OSError has none
        if why:
            words = f"cannot be read ({why}); check the path and its permissions"
        raise ImageError(f"{path}: {words.replace('{}', type(error).__name__)}") from error
