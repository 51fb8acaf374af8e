"""The kernels compiled by Numba at first use, and kept on disk.

The files are those of `fastrnn.kernels.numpy_kernels`, where the equations stand: `sequence` the class of the
study notes, `cells`, `layer`, `output`, `sampling`, `gradients`, `optimizers`, and `indices`.  They are plain loops
over the rows of matrices.  What a row is given to is in `elementary`, `packing` and `products`, each with the same in
NumPy beside it, and written in `emit`, which says what registers hold; `memory` cuts work space into matrices, and
`jit` has Numba's options.
"""

from fastrnn.kernels import PACK_ROWS_FROM
from fastrnn.kernels.numba_kernels.gradients import reduce_gradients
from fastrnn.kernels.numba_kernels.indices import copy_targets, wrap_indices
from fastrnn.kernels.numba_kernels.jit import cache_folder
from fastrnn.kernels.numba_kernels.layer import layer_backward, layer_forward, layer_sizes, pack_layer
from fastrnn.kernels.numba_kernels.optimizers import optimize
from fastrnn.kernels.numba_kernels.output import output_logits, output_loss, output_sizes, pack_output
from fastrnn.kernels.numba_kernels.sampling import sample_batch, sample_size
from fastrnn.kernels.numba_kernels.sequence import (
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
from fastrnn.kernels.numba_kernels.steps import StepKernel
from fastrnn.kernels.numpy_kernels.layer import copy_steps

__all__ = [
    "HAS_TEAMS", "NAME", "PACK_ROWS_FROM", "USES_BLAS", "StepKernel", "backward", "cache_folder", "copy_steps", "copy_targets",
    "exp", "forward", "layer_backward", "layer_forward", "layer_sizes", "loss_and_grads", "optimize", "output_logits", "output_loss",
    "output_sizes", "pack_layer", "pack_output", "recurrence", "reduce_gradients", "sample",
    "sample_batch", "sample_size", "sigmoid", "tanh", "train_step", "update", "workspace_size", "wrap_indices",
]  # fmt: skip

NAME = "numba"
HAS_TEAMS = False
USES_BLAS = False
