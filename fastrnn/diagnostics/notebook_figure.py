"""A figure that a notebook shows as the result of a cell, without pyplot.

Imports matplotlib: `canvas` imports this when it draws.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from fastrnn.shown import png

__all__ = ["NotebookFigure"]


class NotebookFigure(Figure):
    """matplotlib's figure, which by itself is shown only where pyplot was imported."""

    def _repr_png_(self) -> bytes:
        return png(self)
