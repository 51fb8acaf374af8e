"""How the batched kernels go through a batch."""

ROWS = 128  # sequences that go through time together, and rows that a product over time sums up at once


def pieces(rows):
    """The numbers of sequences that may go through time together, when there are at most `rows`: 1, 2, ..."""
    return range(1, max(1, min(rows, ROWS)) + 1)


def groups(rows):
    """``start, stop`` of each group of at most `ROWS` sequences, which go through time together; ``rows`` are those of
    all of them."""
    start, stop = rows
    for first in range(start, stop, ROWS):
        yield first, min(first + ROWS, stop)
