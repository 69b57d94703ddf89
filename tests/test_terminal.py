"""What a person at a terminal sees: bars with the time left there, plain lines in a log, the table at the end."""

import io
import os
import subprocess
import sys

import pytest

from lemlight import terminal
from lemlight.terminal import Progress, duration, print_summary


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(terminal.time, "monotonic", lambda: Clock.now)
    return Clock


def test_a_log_gets_a_line_every_half_a_minute_and_one_at_the_end(clock, capsys):
    for _ in Progress("preparing images", 10, done=2).over(range(8)):
        clock.now += 8
    assert capsys.readouterr().err.splitlines() == [
        "preparing images: 6 of 10 images, 32 s left",
        "preparing images: 10 of 10 images, in 1 min 4 s",
    ]


def test_what_is_short_or_silenced_says_nothing(clock, capsys):
    for enabled, seconds in ((True, 0.01), (False, 100)):
        for _ in Progress("reading headers", 3, enabled=enabled).over(range(3)):
            clock.now += seconds
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_the_time_left(clock, monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("fetching", 4_000_000, "B") as bar:
        clock.now += 2
        bar.update(1_000_000)
        assert "1 of 4 MB, 6 s left" in screen.getvalue()
        clock.now += 6
        bar.update(3_000_000)
    assert "4 of 4 MB, in 8 s" in screen.getvalue()


def test_an_unknown_total_has_no_time_left(clock):
    bar = Progress("fetching", 0, "B")
    clock.now += 5
    bar.update(7_000_000)
    assert bar.text() == "7 MB, in 5 s"


def test_an_error_in_between_goes_through_and_ends_the_bar(clock, capsys):
    def two():
        yield 1
        clock.now += 40
        yield 2
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(Progress("preparing", 9).over(two()))
    assert capsys.readouterr().err == "preparing: 2 of 9 images, 2 min 20 s left\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (12000, "3 h 20 min")],
)
def test_times_as_a_person_tells_them(seconds, text):
    assert duration(seconds) == text


def test_the_table_at_the_end_is_aligned(capsys):
    print_summary({"page": "a.html", "all of this run": "folder"})
    assert capsys.readouterr().out == "page:            a.html\nall of this run: folder\n"


@pytest.mark.parametrize("name", ["train", "localize"])
def test_a_shell_completes_choices(name, tmp_path):
    line = f"lemlight-{name} " + {"train": "pooling=", "localize": "check"}[name]
    code = f"import sys; from lemlight.{name} import main; sys.argv = ['lemlight-{name}', '-sc', 'query=bash']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"train": "pooling=lem", "localize": "checkpoint="}[name] in done.stdout.split()
