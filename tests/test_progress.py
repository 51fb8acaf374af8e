"""Progress on standard error: a bar that moves on a terminal, lines that grow rarer elsewhere."""

import io
import types

import pytest

from fastrnn.text import display as progress


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(progress.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def shown(monkeypatch):
    """Standard error, as the module sees it; pytest changes the real one as it likes."""
    stderr = io.StringIO()
    monkeypatch.setattr(progress, "sys", types.SimpleNamespace(stderr=stderr, modules={}))
    return stderr


def test_lines_where_there_is_no_terminal(clock, shown):
    display = progress.Display()
    times = []
    for second in range(3 * 3600):
        clock.now = 100.0 + second
        if display.is_due():
            times.append(second)
            display.show(second / 10800, "loss 1.5")
    display.close()
    assert times[:3] == [5, 10, 15]
    assert times[-1] - times[-2] == 60
    assert len(times) < 300
    lines = shown.getvalue().splitlines()
    assert lines[0] == "  0%      5.0 s  loss 1.5"
    assert len(lines) == len(times)


def test_no_line_twice(clock, shown):
    display = progress.Display()
    clock.now += 6
    display.show(1.0, "done")
    display.show(1.0, "done")
    assert shown.getvalue() == "100%      6.0 s  done\n"


def test_no_share_of_what_has_no_end(clock, shown):
    display = progress.Display(endless=True)
    clock.now += 7
    display.show(0.0, "loss 1.5")
    assert shown.getvalue() == "    7.0 s  loss 1.5\n"


@pytest.mark.parametrize("endless", [False, True])
@pytest.mark.parametrize("columns", [0, 120])
def test_a_bar_on_a_terminal(monkeypatch, shown, endless, columns):
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr(progress, "_tells_its_size", lambda stream: columns > 0)
    display = progress.Display(endless=endless)
    display.show(0.25, "loss 1.5")
    display.show(1.0, "loss 0.5")
    display.close()
    moves = shown.getvalue().split("\r")
    assert "loss 0.5" in moves[-1]
    assert any("loss 1.5" in move for move in moves)
    assert ("100%|" in moves[-1]) != endless
    assert shown.getvalue().endswith("\n")


def test_a_notebook_gets_the_bar(monkeypatch, shown):
    progress.sys.modules["ipykernel"] = None
    display = progress.Display()
    display.show(0.5, "loss 1.5")
    display.close()
    assert " 50%|" in shown.getvalue()


def test_what_begins_moves_a_bar_at_once_and_is_a_line_when_it_is_due(clock, shown, monkeypatch):
    display = progress.Display()
    display.begin(0.0, "first")
    clock.now += 6
    display.begin(0.5, "second")
    assert shown.getvalue() == " 50%      6.0 s  second\n"
    monkeypatch.setattr(shown, "isatty", lambda: True)
    display = progress.Display()
    display.begin(0.25, "third")
    display.close()
    assert " 25%|" in shown.getvalue()
    assert "third" in shown.getvalue()
