"""The errors that a user can cause: each message says what is wrong, where, and what to do."""


class LemlightError(Exception):
    """A user's mistake or a broken input; commands print its message without a traceback and exit with 2."""


class ImageError(LemlightError):
    """One image that cannot be used; preparing lists it among those left out and goes on."""
