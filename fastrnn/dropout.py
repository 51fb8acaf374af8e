"""Masks of dropout, and the places in one stream of random numbers that they are drawn from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastrnn import threads

__all__ = ["Piece", "draw", "sections"]


class Piece(NamedTuple):
    """Sequences of a part of a batch whose masks lie in one section of the stream.

    A section has the masks of a part of the whole batch.  That may be more of a batch than is here: of a batch that
    ranks share, each draws its own sequences from the section that one process would draw all from.
    """

    #: Of the stream, for the first layer.
    section: int
    #: Sequences in the section, and which of them these are.
    rows: int
    first: int
    #: Where they are in the part, and how many.
    place: int
    taken: int


def sections(N: int, first: int = 0, total: int | None = None) -> tuple[int, list[list[Piece]]]:
    """Where the masks of each part of a batch lie.

    Parameters
    ----------
    N : int
        Sequences of the batch.
    first, total : int
        Which of the whole batch they are: those from `first` on of `total`; all of them by default.

    Returns
    -------
    count : int
        Sections for each layer.
    pieces : list of list of Piece
        Those of each part.

    Examples
    --------
    >>> sections(20)
    (2, [[Piece(section=0, rows=8, first=0, place=0, taken=8)], [Piece(section=1, rows=12, first=0, place=0, taken=12)]])
    >>> sections(8, 4, 20)
    (2, [[Piece(section=0, rows=8, first=4, place=0, taken=4), Piece(section=1, rows=12, first=0, place=4, taken=4)]])
    """
    whole = threads.parts(N if total is None else total)
    pieces = []
    for start, stop in threads.parts(N):
        begin, end = first + start, first + stop
        of_part = []
        for section, (a, b) in enumerate(whole):
            low, high = max(a, begin), min(b, end)
            if low < high:
                of_part.append(Piece(section, b - a, low - a, low - begin, high - low))
        pieces.append(of_part)
    return len(whole), pieces


def draw(
    generator: np.random.Generator, key: tuple[int, int], section: int, step: int, flat: np.ndarray, width: int, p: float
) -> None:  # fmt: skip
    """Fill an array with the factors 0, with probability `p`, and 1 / (1 - p).

    Parameters
    ----------
    generator : Generator
        Of PCG64DXSM; its state is replaced.
    key : (int, int)
        Start and stride of the stream.
    section : int
    step : int
        Time step of the section that the first row of `flat` is of: each has its place, so that it does not matter
        whether those before it are drawn too.
    flat : ndarray, shape (T, n)
        C-contiguous.
    width : int
        Draws of 64 bits for a time step.
    p : float
        Less than 1.
    """
    stream: Any = generator.bit_generator
    state, increment = key
    stream.state = {
        "bit_generator": "PCG64DXSM",
        "state": {"state": state, "inc": increment},
        "has_uint32": 0,
        "uinteger": 0,
    }
    stream.advance((section << 64) + step * width)
    generator.random(out=flat.reshape(-1), dtype=flat.dtype.type)
    # 1 where the number in [0, 1) is above p, 0 elsewhere; a comparison would go through buffers.
    flat -= p
    np.ceil(flat, out=flat)
    flat *= 1 / (1 - p)
