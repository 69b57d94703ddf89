"""From files to batches: image tables, reading, breast geometry, the prepared store, splits, augmentation."""

import sys

import PIL.Image  # noqa: F401  # before gdcm: after it, saving a PNG ends the process ("double free or corruption")

# python-gdcm, which pydicom imports, asks for a module of Python 2: a folder `dl` beside the user must not pass for it
if "gdcm" not in sys.modules and "dl" not in sys.modules:
    sys.modules["dl"] = None  # type: ignore[assignment]
    try:
        import gdcm  # noqa: F401
    finally:
        del sys.modules["dl"]
