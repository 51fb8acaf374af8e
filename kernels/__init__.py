"""The loops of `fastrnn`, one file a backend, installed as ``fastrnn.kernels``.

Every backend file defines the same functions with the same signatures; `fastrnn.backends` chooses
one, and only checked arguments reach it.  Dimension letters, as everywhere in the project: ``N``
sequences in a batch, ``T`` time steps, ``d`` input size, ``h`` hidden size, ``q`` output size.

Nothing here imports `fastrnn`: imports run ``fastrnn -> fastrnn.backends -> fastrnn.kernels``.
"""

if __name__ == "kernels":
    raise ImportError(
        "the folder kernels/ is installed as fastrnn.kernels: import that instead; under the bare "
        "name 'kernels' it would be a second copy"
    )

#: How a gradient is clipped, as the kernels are told: not at all, every accumulator after every time
#: step (the notes' listing), every entry once after the loop, or by the global norm (eq. 15).
CLIP_NONE, CLIP_STEP, CLIP_VALUE, CLIP_NORM = range(4)

#: The cells: ``h_t = tanh(z_t)`` and ``h_t = max(z_t, 0)``, of ``z_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh``.
TANH, RELU = range(2)

#: Rows, time steps times sequences, from which on matrices are packed in the order in which they are read;
#: for fewer, they are used as they are.
PACK_FROM = 8
