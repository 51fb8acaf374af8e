"""The recurrent weights: spectral radius and singular values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import check_choice, check_real_array
from fastrnn.diagnostics.canvas import BLUE, GREY, RED, drawable, legend_below, line_style, new_axes, tidy
from fastrnn.diagnostics.results import Measured, about_model, check_direction, open_finite
from fastrnn.diagnostics.unroll import check_layer, open_model
from fastrnn.diagnostics.words import about, headline, number
from fastrnn.sharing import reading_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastrnn.hints import Model, RadiusMethod

__all__ = [
    "Spectrum",
    "estimate_radius",
    "plot_singular_values",
    "singular_values",
    "spectral_radius",
    "spectrum",
]


def _recurrent_weights(model: Any, layer: int, direction: int) -> np.ndarray:
    """W_hh of a model, or the matrix that was given in its place."""
    if isinstance(model, np.ndarray):
        W = check_real_array(model, "model", np.dtype(np.float64), ("h", "h"))
        if W.shape[0] != W.shape[1]:
            raise ValueError(f"model must be a model or a square matrix, got shape {W.shape}")
    else:
        m = open_finite(model)
        if m.cell.slope is None:
            raise ValueError(
                f"model must have one W_hh that its state is multiplied by; here there is one for each gate "
                f"({', '.join(m.cell.gates)}), and the state goes on beside them: jacobian_norms measures what a step "
                f"does to it"
            )
        W = m.recurrent_weights(check_layer(m, layer), check_direction(m, direction))
    if not np.isfinite(W).all():
        raise ValueError("the recurrent weights hold NaN or infinity")
    return W


@reading_model
def spectral_radius(
    model: Model | np.ndarray, *, layer: int = -1, direction: int = 0, method: RadiusMethod = "exact"
) -> float:
    """Largest absolute eigenvalue of W_hh.

    Around 1 a linear net holds its gradients; well below they vanish, well above they explode.

    Parameters
    ----------
    model : model, or ndarray of shape (h, h)
    layer, direction : int
        Whose W_hh.
    method : {"exact", "estimate"}
        All eigenvalues, or the growth of ``W_hh^k V`` for a block of vectors: quick for large h, and
        exact to about 2%.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or the model's weights hold NaN or infinity.

    Examples
    --------
    >>> round(spectral_radius(np.array([[0.0, 2.0], [-2.0, 0.0]])), 12)
    2.0
    """
    check_choice(method, "method", ("exact", "estimate"))
    W = _recurrent_weights(model, layer, direction)
    if method == "estimate":
        with np.errstate(all="ignore"):
            return estimate_radius(W)
    return float(np.abs(np.linalg.eigvals(W)).max())


#: Products of the estimate: growth is measured over the second half.
_PRODUCTS = 96


def estimate_radius(W: np.ndarray) -> float:
    V = np.random.default_rng(0).standard_normal((len(W), min(8, len(W))))
    grown = 0.0
    for i in range(_PRODUCTS):
        V = W @ V
        size = float(np.linalg.norm(V))
        if size == 0:
            return 0.0
        V /= size
        if i >= _PRODUCTS // 2:
            grown += math.log(size)
    return math.exp(grown / (_PRODUCTS - _PRODUCTS // 2))


@reading_model
def singular_values(model: Model | np.ndarray, *, layer: int = -1, direction: int = 0) -> np.ndarray:
    """Singular values of W_hh, largest first.

    The largest is how much one step can stretch a gradient at most, as tanh's derivative is at most 1.

    Parameters
    ----------
    model : model, or ndarray of shape (h, h)
    layer, direction : int
        Whose W_hh.

    Returns
    -------
    ndarray of float64, shape (h,)

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or the model's weights hold NaN or infinity.

    Examples
    --------
    >>> singular_values(np.diag([0.5, 2.0])).tolist()
    [2.0, 0.5]
    """
    return np.linalg.svd(_recurrent_weights(model, layer, direction), compute_uv=False)


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(Measured):
    """Result of `spectrum`: eigenvalues and singular values of W_hh.

    Attributes
    ----------
    eigenvalues : ndarray of complex, shape (h,)
    singular_values : ndarray, shape (h,)
        Largest first.
    spectral_radius : float
    model : str
        Whose weights they are, in words, for titles.  Empty where that is not known.
    read : str
        Empty: no text is read for it.
    """

    eigenvalues: np.ndarray
    singular_values: np.ndarray
    spectral_radius: float

    def _sentences(self) -> list[str]:
        return _spectrum_sentences(self)

    def _size(self) -> str:
        return f"Whh of {len(self.singular_values)} x {len(self.singular_values)}"

    def plot(self, ax: Any = None) -> Figure:
        """`fastrnn.figures.plot_singular_values` of this result."""
        return plot_singular_values(self, ax=ax)


@reading_model
def spectrum(model: Model | np.ndarray, *, layer: int = -1, direction: int = 0) -> Spectrum:
    """Eigenvalues, singular values and spectral radius of W_hh at once.

    Parameters
    ----------
    model, layer, direction
        As for `singular_values`.

    Returns
    -------
    Spectrum

    Raises
    ------
    TypeError, ValueError
        As `singular_values`.

    Examples
    --------
    >>> spectrum(np.diag([0.5, 2.0])).spectral_radius
    2.0
    """
    W = _recurrent_weights(model, layer, direction)
    values = np.linalg.eigvals(W).astype(np.complex128)
    about = {}
    if not isinstance(model, np.ndarray):
        m = open_model(model)
        about = about_model(m, check_layer(m, layer), check_direction(m, direction))
    return Spectrum(values, np.linalg.svd(W, compute_uv=False), float(np.abs(values).max()), **about)


def _spectrum_sentences(r: Spectrum) -> list[str]:
    h, radius = len(r.singular_values), r.spectral_radius
    above = int((r.singular_values > 1).sum())
    if radius < 0.9:
        meaning = "Well below 1: by itself Whh lets the state fade."
    elif radius <= 1.1:
        meaning = "Near 1: by itself Whh keeps the state."
    else:
        meaning = (
            "Above 1: by itself Whh makes the state grow; the slope of the nonlinearity can hold it back."
        )
    return [
        headline(f"Recurrent weights Whh, {h} x {h}", r),
        f"The spectral radius, what Whh does to a state in the long run, is {number(radius)} a step.",
        meaning,
        f"The largest singular value, what one step does at most, is {number(float(r.singular_values[0]))}; "
        f"{above} of {h} are above 1, the smallest is {number(float(r.singular_values[-1]))}.",
    ]


def plot_singular_values(spectrum: Spectrum, *, ax: Any = None) -> Figure:
    """Singular values and absolute eigenvalues of W_hh, largest first.

    Parameters
    ----------
    spectrum : Spectrum
    ax : matplotlib.axes.Axes or None
        None makes a figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    figure, ax = new_axes(ax)
    values = drawable(spectrum.singular_values)
    rank = np.arange(1, len(values) + 1)
    style = line_style(len(values))
    ax.plot(
        rank, values, color=BLUE,
        label=f"singular values: one step stretches by at most {number(float(spectrum.singular_values[0]))}",
        **style,
    )  # fmt: skip
    ax.plot(
        rank, np.sort(drawable(np.abs(spectrum.eigenvalues)))[::-1], color=RED,
        label=f"absolute eigenvalues: spectral radius {number(spectrum.spectral_radius)}", **style,
    )  # fmt: skip
    ax.axhline(1, color=GREY, linewidth=1, linestyle=":", label="1: neither grows nor shrinks")
    tidy(
        ax, "What W$_{hh}$ does to a vector in one step", about(spectrum), "rank, largest first",
        "factor (no unit)",
    )  # fmt: skip
    ax.set_ylim(0, None)
    legend_below(ax)
    return figure
