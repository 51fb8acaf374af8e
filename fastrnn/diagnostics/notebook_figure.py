"""A figure that a notebook shows as the result of a cell, without pyplot.

Imports matplotlib: `fastrnn.figures` imports this when it draws.
"""

from __future__ import annotations

import io

from matplotlib.figure import Figure

__all__ = ["NotebookFigure", "png"]


class NotebookFigure(Figure):
    """matplotlib's figure, which by itself is shown only where pyplot was imported."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
