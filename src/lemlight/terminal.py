"""What a person at a terminal sees of a command: how far it is, with the time left, and at its end where things lie.

On a terminal that is a bar. In a log, a pipe or a batch job it is a plain line every half a minute.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

Item = TypeVar("Item")
SHOWN_AFTER = 1.0  # seconds: what is done sooner needs no bar
EVERY = 30.0  # seconds between two lines of a log
DRAWN_EVERY = 0.1  # seconds; by the process itself, since a thread of its own does not go with processes that fork


class Progress:
    """How far some work is: `with Progress("preparing images", 96) as bar: bar.update()`.

    Args:
        what: is being done.
        total: how many there are; 0: not known.
        units: of what, in the plural, "B" for bytes.
        done: how many were there before.
        enabled: False shows nothing.
    """

    def __init__(self, what: str, total: int, units: str = "images", done: int = 0, enabled: bool = True) -> None:
        self.what, self.total, self.units, self.done, self.enabled = what, total, units, done, enabled
        self._before = done
        self._bar: Any = None
        self._started = self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.update(0, completed=self.done, text=self.text())
            self._bar.stop()
        elif self.enabled and kind is None and time.monotonic() - self._started > EVERY:
            self._say()

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """Give the items, and count each when the next one is asked for."""
        with self:
            for item in items:
                yield item
                self.update()

    def update(self, count: int = 1) -> None:
        """Count what was done, and show it where it is time to."""
        self.done += count
        now = time.monotonic()
        if not self.enabled or now - self._started < SHOWN_AFTER:
            return
        if sys.stderr.isatty():
            if self._bar is None or now - self._said > DRAWN_EVERY:
                self._draw()
                self._said = now
        elif now - self._said > EVERY and (not self.total or self.done < self.total):
            self._say()
            self._said = now

    def text(self) -> str:
        """Tell how many of how many are done, and the time left, or taken once all are."""
        spent, came = time.monotonic() - self._started, self.done - self._before
        if not self.total or self.done >= self.total:
            time_text = f"in {duration(spent)}"
        else:
            time_text = f"{duration(spent / came * (self.total - self.done))} left" if came else "time left unknown"
        if self.units == "B":
            size = f"{self.done / 1e6:,.0f}" + (f" of {self.total / 1e6:,.0f} MB" if self.total else " MB")
        else:
            size = f"{self.done}" + (f" of {self.total}" if self.total else "") + f" {self.units}"
        return f"{size}, {time_text}"

    def _say(self) -> None:
        print(f"{self.what}: {self.text()}", file=sys.stderr, flush=True)

    def _draw(self) -> None:
        if self._bar is None:
            self._bar = _bar()
            self._bar.add_task(self.what, total=self.total or None, text="")
            self._bar.start()
        self._bar.update(0, completed=self.done, text=self.text())
        self._bar.refresh()


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}")
    in_between = sys.stdout.isatty()  # what is printed meanwhile goes above the bar, unless it goes to a file
    return Progress(*columns, console=Console(stderr=True), auto_refresh=False, redirect_stdout=in_between)


def duration(seconds: float) -> str:
    """Tell a time as a person would: 8 s, 2 min 5 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def on_a_terminal() -> bool:
    """Whether both what is printed and how far it is are seen by a person."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def print_summary(rows: Mapping[str, object]) -> None:
    """Print the table that a command ends with: what came out, and where it lies."""
    width = max(map(len, rows)) + 2
    print("\n".join(f"{name + ':':<{width}}{value}" for name, value in rows.items()))
