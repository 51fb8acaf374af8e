"""The kernels in plain NumPy: they run wherever NumPy does, and say what the other backends compute.

One file a concept, its equations at the top: `sequence` the class of the study notes, `cells`, `layer`,
`output`, `sampling`, `steps`, `gradients`, `optimizers`, and `indices`.
"""

from fastrnn.kernels.numpy_kernels.gradients import reduce_gradients
from fastrnn.kernels.numpy_kernels.indices import copy_targets, wrap_indices
from fastrnn.kernels.numpy_kernels.layer import (
    copy_steps,
    layer_backward,
    layer_forward,
    layer_sizes,
    pack_layer,
)
from fastrnn.kernels.numpy_kernels.optimizers import optimize
from fastrnn.kernels.numpy_kernels.output import output_logits, output_loss, output_sizes, pack_output
from fastrnn.kernels.numpy_kernels.sampling import sample_batch, sample_size
from fastrnn.kernels.numpy_kernels.sequence import (
    backward,
    exp,
    forward,
    loss_and_grads,
    recurrence,
    sample,
    sigmoid,
    tanh,
    train_step,
    update,
    workspace_size,
)
from fastrnn.kernels.numpy_kernels.steps import StepKernel

__all__ = [
    "HAS_TEAMS", "NAME", "PACK_ROWS_FROM", "USES_BLAS", "StepKernel", "backward", "copy_steps", "copy_targets", "exp", "forward",
    "layer_backward", "layer_forward", "layer_sizes", "loss_and_grads", "optimize", "output_logits", "output_loss", "output_sizes",
    "pack_layer", "pack_output", "recurrence", "reduce_gradients", "sample", "sample_batch", "sample_size",
    "sigmoid", "tanh", "train_step", "update", "workspace_size", "wrap_indices",
]  # fmt: skip

NAME = "numpy"
HAS_TEAMS = False
USES_BLAS = True  # of as many threads as it likes
PACK_ROWS_FROM = 0  # it packs nothing
