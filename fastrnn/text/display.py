"""How long work shows how far it is: a bar on a terminal, lines now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from fastrnn.terminal import for_progress

__all__ = ["Display"]

#: Seconds between two moves of the bar.
BAR_EVERY = 0.1

#: Seconds before the first line and between two lines at least; they grow with the time passed, so that
#: a night's work does not fill a log.
LINE_EVERY, LONGEST_LINE_EVERY = 5.0, 60.0

_WITH_END = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
_WITHOUT_END = "{elapsed}{postfix}"

#: On terminals of fewer columns there is room for what is told, and for no bar.
ROOM_FOR_A_BAR = 72
_NARROW = "{percentage:3.0f}%{postfix}"


class Display:
    """Progress on standard error.

    What cannot be shown there, because it is closed, full or missing, is dropped.  A notebook, whose
    standard error is no terminal but moves back at a carriage return, gets the bar.

    Parameters
    ----------
    endless : bool
        Nobody knows how long the work takes: no share of it is shown.

    Examples
    --------
    >>> display = Display()
    >>> display.is_due()
    False
    >>> display.close()
    """

    def __init__(self, *, endless: bool = False) -> None:
        self._start = time.perf_counter()
        self._endless = endless
        self._bar: Any = None
        self._shown = ""
        self._stream = for_progress(sys.stderr)
        if not self._stream.isatty() and "ipykernel" not in sys.modules:
            self._next = self._start + LINE_EVERY
            return
        from tqdm import tqdm

        self._next = self._start + BAR_EVERY
        # tqdm shows nothing on a terminal that does not tell its size.
        size: dict[str, Any] = (
            {"dynamic_ncols": True} if _tells_its_size(self._stream) else {"ncols": 80, "nrows": 24}
        )
        with_end = _WITH_END if _columns(self._stream) >= ROOM_FOR_A_BAR else _NARROW
        self._bar = tqdm(
            total=None if endless else 1.0,
            bar_format=_WITHOUT_END if endless else with_end,
            file=self._stream,
            **size,
        )

    def is_due(self) -> bool:
        """Whether it is time for `show`."""
        return time.perf_counter() >= self._next

    def begin(self, done: float, text: str) -> None:
        """Say what begins now and may take long: a bar moves at once, a line is written if it is due."""
        if self._bar is not None or self.is_due():
            self.show(done, text)

    def show(self, done: float, text: str) -> None:
        """Move the bar, or write a line.

        Parameters
        ----------
        done : float
            Share of the work that is done, in [0, 1].
        text : str
        """
        now = time.perf_counter()
        passed = now - self._start
        if self._bar is None:
            share = "" if self._endless else f"{done:4.0%}  "
            line = f"{share}{passed:7.1f} s  {text}"
            if line != self._shown:
                print(line, file=self._stream, flush=True)
            self._shown = line
            self._next = now + min(max(LINE_EVERY, passed / 10), LONGEST_LINE_EVERY)
            return
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.n = done
        self._bar.refresh()
        self._next = now + BAR_EVERY

    def close(self) -> None:
        """Leave what is shown, and go to the next line."""
        if self._bar is not None:
            self._bar.close()


def _tells_its_size(stream: Any) -> bool:
    return _columns(stream, 0) > 0


def _columns(stream: Any, otherwise: int = 80) -> int:
    """Width of a terminal, `otherwise` where it does not tell."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or otherwise
    except (OSError, ValueError):  # a notebook's standard error has no number
        return otherwise
