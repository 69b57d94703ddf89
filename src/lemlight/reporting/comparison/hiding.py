"""Sentences for a page that may be sent to others: without names of patients, images and files."""

import re
from collections.abc import Iterable

HIDDEN = "…"
LISTED = re.compile(r"(\d+ (?:images?|patients?|files?)) \([^()]*\)")
# Words of a message that can be no name: lower-case words, small numbers, errors of Python, a few acronyms.
PLAIN = re.compile(
    r"[a-z]+|\d{1,4}(?:\.\d+)?%?|[a-z_]+(?:\.[a-z_]+)*=\d{1,4}(?:\.\d+)?|[A-Z]\w*(?:Error|Exception)|CUDA|GPU|CPU|MPS|"
    r"NaN|AUC|MiB|GiB|GB|MB|Dice|Lightning|PyTorch"
)
MARKS = "()[]{},.;:!?'\"`"


def hide(text: str, names: Iterable[str]) -> str:
    """Take known names, and lists of images behind their number, out of a sentence."""
    found = sorted({name for name in names if name and name in text}, key=len, reverse=True)
    for name in found:
        text = text.replace(name, HIDDEN)
    return LISTED.sub(r"\1", text)


def plain_words(text: str) -> str:
    """Keep of an error message only the words that can be no name of a patient, an image or a file.

    For messages whose names are not known: a failed training leaves no list of its images.
    """
    kept = [word if PLAIN.fullmatch(word.strip(MARKS)) or not word.strip(MARKS) else HIDDEN for word in text.split()]
    return re.sub(rf"{HIDDEN}(?: {HIDDEN})+", HIDDEN, " ".join(kept))
