"""Colours of the plots: blue is fastrnn, lighter where a backend is slower; greys are everybody else."""

from __future__ import annotations

from collections.abc import Iterable

FASTRNN = "#0072B2"
BACKENDS = {"cython": FASTRNN, "numba": "#5AA9D6", "numpy": "#BBDDF0"}
OTHER_BACKEND = "#8CC3E3"

#: Lightness of a grey, the darkest and the lightest that are used.
_GREYS = 0.35, 0.8


def of_contenders(backends: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """A colour for each backend, and a grey for each other contender, the first the darkest."""
    backends, others = list(backends), list(others)
    dark, light = _GREYS
    greys = [f"{dark + (light - dark) * i / max(1, len(others) - 1):.3f}" for i in range(len(others))]
    return {name: BACKENDS.get(name, OTHER_BACKEND) for name in backends} | dict(
        zip(others, greys, strict=True)
    )


def shades(n: int) -> list[str]:
    """`n` tones of fastrnn's blue, from light to dark, for curves that are all its own."""
    stops = ["#BFE0F2", FASTRNN, "#00294D"]
    tones = []
    for i in range(n):
        place = (len(stops) - 1) * i / max(1, n - 1)
        first = min(int(place), len(stops) - 2)
        ends = zip(_rgb(stops[first]), _rgb(stops[first + 1]), strict=True)
        tones.append("#" + "".join(f"{round(a + (b - a) * (place - first)):02x}" for a, b in ends))
    return tones


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
