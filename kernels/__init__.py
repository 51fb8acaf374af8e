"""The loops of `fastrnn`, a folder or a module for each backend, installed as ``fastrnn.kernels``.

`CONTRACT` says what every backend has.  `fastrnn.backends` chooses one, and only checked arguments reach it; what
each function does stands in `fastrnn.kernels.numpy_kernels`, and ``tests/test_contract.py`` holds all of them to it.
Dimension letters, as everywhere in the project: ``N`` sequences in a batch, ``T`` time steps, ``d`` input size,
``h`` hidden size, ``q`` output size.

Kernels write to arrays that the caller gives, and neither allocate in a loop over time, nor print, nor draw random
numbers; they check nothing but what would let them write beside an array.  Nothing here imports `fastrnn`: imports
run ``fastrnn -> fastrnn.backends -> fastrnn.kernels``.
"""

if __name__ == "kernels":
    raise ImportError(
        "the folder kernels/ is installed as fastrnn.kernels: import that instead; under the bare "
        "name 'kernels' it would be a second copy"
    )

#: How a gradient is clipped, as the kernels are told: not at all, every accumulator after every time
#: step (the notes' listing), every entry once after the loop, or by the global norm (eq. 15).
CLIP_NONE, CLIP_STEP, CLIP_VALUE, CLIP_NORM = range(4)

#: The cells: ``h_t = tanh(z_t)`` and ``h_t = max(z_t, 0)``, of ``z_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh``; and two
#: that have gates, whose equations are in ``numpy_kernels/cells.py``.
TANH, RELU, GRU, LSTM = range(4)

#: Of each cell: rows of ``W_ih`` and ``W_hh`` for each hidden unit; states, h and what else goes from one time step to
#: the next; and numbers for each hidden unit that forward keeps of a step for backward, beside h.
GATES = (1, 1, 3, 4)
STATES = (1, 1, 1, 2)
KEPT = (0, 0, 4, 5)

#: What the output layer is trained for: the cross-entropy of its softmax, the squared error of its values, or the
#: negative log-likelihood of a normal distribution, of which the outputs are the means, then the log-variances.
CROSS_ENTROPY, SQUARED_ERROR, GAUSSIAN = range(3)

#: Time steps of one sequence from which on its matrices are packed, in the order in which they are read; and rows,
#: time steps times sequences, from which on those of a layer are.  For fewer, they are used as they are.
PACK_FROM = 8
PACK_ROWS_FROM = 8

#: The most parts of a batch, and the most threads of a team, that a call may be given.
MOST_PARTS, MOST_THREADS = 16, 64

#: For which passes a layer's weights are packed: forward, backward after that, or both.
PACK_FORWARD, PACK_BACKWARD = 1, 2
PACK_BOTH = PACK_FORWARD | PACK_BACKWARD

#: Functions of every backend, and their arguments.  With them go ``NAME``; ``USES_BLAS``, whether products are
#: BLAS's, on as many threads as that likes; ``HAS_TEAMS``, whether up to ``threads`` threads share a call, whose bits do
#: not depend on that (the others go on with the calling one); and ``PACK_ROWS_FROM``, 0 where it makes no difference.
#:
#: Where there are teams, one call may run all parts of a batch: then ``rows`` is a tuple of their bounds, ``work`` a list
#: with an array for each thread that takes parts, and ``grads`` a tuple with an entry for each part.
CONTRACT = {
    # one sequence: the class of the study notes
    "workspace_size": ("T", "d", "h", "q"),
    "forward": ("params", "inputs", "hs", "ps", "work", "threads"),
    "backward": ("params", "inputs", "targets", "hs", "ps", "limit", "grads", "work", "threads"),
    "loss_and_grads": ("params", "inputs", "targets", "hs", "ps", "clip", "grads", "work", "threads"),
    "train_step": ("params", "inputs", "targets", "hs", "ps", "clip", "lr", "grads", "work", "threads"),
    "update": ("params", "grads", "lr"),
    "sample": ("params", "h", "start", "uniforms", "out", "work", "threads"),
    "recurrence": ("params", "hs", "work", "threads"),
    # a layer over a batch
    "layer_sizes": ("T", "N", "rows", "d", "h", "cell"),
    "pack_layer": ("layer", "N", "one_hot", "cell", "packed", "passes", "threads"),
    "layer_forward": ("layer", "packed", "batch", "h0", "hs", "kept", "h_n", "rows", "cell", "work", "threads"),
    "layer_backward": (
        "layer", "packed", "batch", "states", "upstream", "wanted", "grads", "accumulate", "rows", "cell",
        "work", "threads",
    ),
    # the output layer of a batch
    "output_sizes": ("T", "N", "rows", "h", "q"),
    "pack_output": ("output", "N", "packed", "threads"),
    "output_logits": ("output", "packed", "hs", "logits", "rows", "work", "threads"),
    "output_loss": (
        "output", "packed", "hs", "goal", "scale", "dhs", "grads", "accumulate", "rows", "work", "threads",
    ),
    # sampling in batches
    "sample_size": ("N", "rows", "d", "h", "q", "cell"),
    "sample_batch": ("stack", "output", "states", "draws", "choice", "out", "rows", "cell", "work", "threads"),
    # gradients and optimizers
    "reduce_gradients": ("parts", "clip", "threshold", "out", "threads"),
    "optimize": ("name", "params", "grads", "states", "numbers", "threads"),
    # what users give, and what tests look at
    "copy_steps": ("source", "out", "threads"),
    "wrap_indices": ("indices", "bound", "out"),
    "copy_targets": ("targets", "bound", "ignored", "out"),
    "tanh": ("x",),
    "exp": ("x",),
    "sigmoid": ("x",),
}  # fmt: skip

#: The methods of the class ``StepKernel`` of every backend, and their arguments; it is made of ``weights``,
#: ``batched``, ``convert`` and ``check_out``.
STEP_KERNEL = {
    "use": ("weights",),
    "step": ("x", "out"),
    "states": (),
    "set_states": ("states",),
}
