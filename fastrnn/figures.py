"""Pictures of what `fastrnn.diagnostics` measures, one function each.

Every function draws into the `ax` it is given, or makes a figure of its own, and returns the
`matplotlib.figure.Figure`: a notebook shows it, a script calls ``figure.savefig("flow.png")``.
Nothing here touches pyplot, so no window opens and no figure stays in memory.  Legends stand below the
axes, where no curve is, if the figure has a layout (``layout="constrained"``) that makes room for them.
Panels that share their y axis (``subplots(1, 3, sharey=True)``) get the same limits.

matplotlib is an extra: ``pip install 'fastrnn[plot]'``.

Examples
--------
>>> from fastrnn import SimpleRNN, diagnostics, figures
>>> flow = diagnostics.gradient_flow(SimpleRNN(4, 16, 4, rng=0), [1, 0, 2, 2], [0, 2, 2, 3])
>>> figure = figures.plot_gradient_flow(flow)                        # doctest: +SKIP
>>> figure.savefig("flow.png")                                       # doctest: +SKIP
"""

from fastrnn.diagnostics.canvas import BLUE, GREEN, GREY, ORANGE, RED  # noqa: F401 - for pictures of your own
from fastrnn.diagnostics.clipping import plot_clip_report, plot_clipping
from fastrnn.diagnostics.gates import plot_gate_saturation
from fastrnn.diagnostics.gradients import plot_gradient_flow, plot_gradient_share
from fastrnn.diagnostics.jacobians import plot_jacobian_norms
from fastrnn.diagnostics.report import plot_diagnosis
from fastrnn.diagnostics.spectrum import plot_singular_values
from fastrnn.diagnostics.states import plot_hidden_states, plot_saturation
from fastrnn.diagnostics.training_curve import plot_history

__all__ = [
    "plot_clip_report",
    "plot_clipping",
    "plot_diagnosis",
    "plot_gate_saturation",
    "plot_gradient_flow",
    "plot_gradient_share",
    "plot_hidden_states",
    "plot_history",
    "plot_jacobian_norms",
    "plot_saturation",
    "plot_singular_values",
]
