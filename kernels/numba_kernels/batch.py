"""How the batched kernels go through a batch."""

ROWS = 128  # sequences that go through time together, and rows that a product over time sums up at once


def pieces(rows):
    """How many sequences go through time together, when there are at most `rows`."""
    return range(1, max(1, min(rows, ROWS)) + 1)


def groups(rows):
    """``start, stop`` of the sequences that go through time together."""
    start, stop = rows
    for first in range(start, stop, ROWS):
        yield first, min(first + ROWS, stop)
