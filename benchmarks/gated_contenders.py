"""GRU and LSTM, and RNN, over a batch: fastrnn and others at forward, and at forward and backward, each checked before.

One layer reads `INPUTS` real numbers a step.  The gradient is that of the sum of the outputs times fixed numbers, with
respect to the inputs and all weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from agreement import check_result
from installed import BACKEND_NAMES, kind_of, require

import fastrnn

#: Real inputs of a step.
INPUTS = 64

CELLS = ("gru", "lstm")
OPERATIONS = ("forward", "forward and backward")

#: (h, T, N) of the tables.
SHAPES = ((100, 100, 1), (128, 50, 32), (256, 64, 64), (512, 64, 64))

TOLERANCE = {"float64": 1e-9, "float32": 2e-4}

NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")

#: Rows of a weight matrix for each hidden unit.
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


class Problem:
    """Weights, inputs and the gradient of the outputs, numbers that float32 holds just so."""

    def __init__(self, cell: str, h: int, T: int, N: int, dtype: str) -> None:
        self.cell, self.h, self.T, self.N, self.dtype = cell, h, T, N, dtype
        rng, rows = np.random.default_rng(0), GATES[cell] * h
        shapes = (rows, INPUTS), (rows, h), (rows,), (rows,)
        bound = 1 / np.sqrt(h)
        arrays = [rng.uniform(-bound, bound, shape) for shape in shapes]
        arrays += [rng.normal(size=(T, N, INPUTS)), rng.normal(size=(T, N, h)) / (T * N)]
        *weights, self.x, self.d_output = (a.astype(np.float32).astype(dtype) for a in arrays)
        self.parameters = dict(zip(NAMES, weights, strict=True))

    @property
    def multiply_adds(self) -> float:
        """Of a forward pass; a backward pass has twice as many."""
        return float(self.T * self.N * GATES[self.cell] * self.h * (INPUTS + self.h))


class FastrnnContender:
    """`fastrnn.RNN`, `GRU` or `LSTM` on one backend."""

    def __init__(self, problem: Problem, threads: int, backend: str) -> None:
        layers = getattr(fastrnn, problem.cell.upper())
        self._layer = layers(
            INPUTS, problem.h, dtype=problem.dtype, backend=backend, num_threads=threads, rng=0
        )
        self._layer.load_state_dict(problem.parameters)
        self._x, self._d_output = problem.x, problem.d_output

    def forward(self) -> Any:
        return self._layer.forward(self._x)[0]

    def both(self) -> Any:
        output = self._layer.forward(self._x)[0]
        return output, self._layer.backward(self._d_output)[0]

    def result(self, returned: Any) -> list[np.ndarray]:
        """Outputs, gradient of the inputs, gradients of the weights."""
        return [*returned, *(self._layer.grads[name] for name in NAMES)]

    def outputs(self, returned: Any) -> np.ndarray:
        array: np.ndarray = np.asarray(returned)
        return array


class TorchContender:
    """`torch.nn.RNN`, `GRU` or `LSTM` under autograd."""

    def __init__(self, problem: Problem, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        layers = getattr(torch.nn, problem.cell.upper())
        self._layer = layers(INPUTS, problem.h, dtype=getattr(torch, problem.dtype))
        self._layer.load_state_dict({name: torch.from_numpy(W) for name, W in problem.parameters.items()})
        self._x = torch.from_numpy(problem.x).requires_grad_()
        self._d_output = torch.from_numpy(problem.d_output)

    def forward(self) -> Any:
        with self._torch.inference_mode():
            return self._layer(self._x)[0]

    def both(self) -> Any:
        for tensor in (self._x, *self._layer.parameters()):
            tensor.grad = None
        output = self._layer(self._x)[0]
        output.backward(self._d_output)
        return output, self._x.grad

    def result(self, returned: Any) -> list[np.ndarray]:
        named = dict(self._layer.named_parameters())
        return [*(a.detach().numpy() for a in returned), *(named[name].grad.numpy() for name in NAMES)]

    def outputs(self, returned: Any) -> np.ndarray:
        array: np.ndarray = returned.numpy()
        return array


class JaxContender:
    """`jit` of `lax.scan`, what comes from the inputs as one product before it; gradients by `jax.vjp`.

    The recurrent matrix is transposed before the loop, behind a barrier: left to XLA, the forward pass of a GRU over one
    sequence takes 3.5 times as long.  Unrolled by 4, or with a product for each gate, nothing is faster.
    """

    #: Of an RNN.  False: each step transposes it, which over one sequence takes half as long.
    transposed_before = True

    def __init__(self, problem: Problem, threads: int) -> None:
        # The process was bound to `threads` cores before XLA made its pool (thread_limits.py).
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        self._jax = jax
        self._weights = tuple(jnp.asarray(problem.parameters[name]) for name in NAMES)
        self._x, self._d_output = jnp.asarray(problem.x), jnp.asarray(problem.d_output)
        state = jnp.zeros((problem.N, problem.h), problem.dtype)

        def rnn(weights: Any, x: Any) -> Any:
            W_ih, W_hh, b_ih, b_hh = weights
            recurrent = jax.lax.optimization_barrier(W_hh.T)

            def step(h: Any, inputs: Any) -> tuple[Any, Any]:
                h = jnp.tanh(inputs + h @ (recurrent if self.transposed_before else W_hh.T))
                return h, h

            return jax.lax.scan(step, state, x @ W_ih.T + (b_ih + b_hh))[1]

        def gru(weights: Any, x: Any) -> Any:
            W_ih, W_hh, b_ih, b_hh = weights
            recurrent = jax.lax.optimization_barrier(W_hh.T)

            def step(h: Any, inputs: Any) -> tuple[Any, Any]:
                i_r, i_z, i_n = jnp.split(inputs, 3, axis=-1)
                h_r, h_z, h_n = jnp.split(h @ recurrent + b_hh, 3, axis=-1)
                z = jax.nn.sigmoid(i_z + h_z)
                h = (1 - z) * jnp.tanh(i_n + jax.nn.sigmoid(i_r + h_r) * h_n) + z * h
                return h, h

            return jax.lax.scan(step, state, x @ W_ih.T + b_ih)[1]

        def lstm(weights: Any, x: Any) -> Any:
            W_ih, W_hh, b_ih, b_hh = weights
            recurrent = jax.lax.optimization_barrier(W_hh.T)

            def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
                h, c = carry
                i, f, g, o = jnp.split(inputs + h @ recurrent, 4, axis=-1)
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            return jax.lax.scan(step, (state, state), x @ W_ih.T + (b_ih + b_hh))[1]

        run = {"rnn": rnn, "gru": gru, "lstm": lstm}[problem.cell]

        def both(weights: Any, x: Any, d_output: Any) -> Any:
            output, back = jax.vjp(run, weights, x)
            return output, back(d_output)

        self._forward, self._both = jax.jit(run), jax.jit(both)

    def forward(self) -> Any:
        return self._jax.block_until_ready(self._forward(self._weights, self._x))

    def both(self) -> Any:
        return self._jax.block_until_ready(self._both(self._weights, self._x, self._d_output))

    def result(self, returned: Any) -> list[np.ndarray]:
        output, (d_weights, d_x) = returned
        return [np.asarray(a) for a in (output, d_x, *d_weights)]

    def outputs(self, returned: Any) -> np.ndarray:
        return np.asarray(returned)


class OnnxRuntimeContender:
    """ONNX's GRU or LSTM, forward only, in float32."""

    def __init__(self, problem: Problem, threads: int) -> None:
        self._session = onnx_session(problem.cell, problem.parameters, INPUTS, problem.h, threads)
        self._x = problem.x

    def forward(self) -> Any:
        return self._session.run(["y"], {"x": self._x})[0]

    def outputs(self, returned: Any) -> np.ndarray:
        array: np.ndarray = returned[:, 0]
        return array


#: Of our gates, where ONNX has them: z, r, h and i, o, f, c.
ONNX_ORDER = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}


def onnx_session(
    cell: str, parameters: dict[str, np.ndarray], d: int, h: int, threads: int, *, step: bool = False
) -> Any:
    """A session with one layer; its input is ``x (T,N,d)``, its output ``y``; of one `step`, with the states given."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    def theirs(W: np.ndarray) -> np.ndarray:
        blocks = np.split(W, len(ONNX_ORDER[cell]))
        return np.concatenate([blocks[i] for i in ONNX_ORDER[cell]])

    W_ih, W_hh, b_ih, b_hh = (theirs(parameters[name]) for name in NAMES)
    constants = {"W": W_ih[None], "R": W_hh[None], "B": np.concatenate([b_ih, b_hh])[None]}
    states = ["h", "c"][: 1 + (cell == "lstm")]
    given = [f"{name}_before" for name in states] if step else []
    returned = [f"{name}_after" for name in states] if step else []
    options = {"linear_before_reset": 1} if cell == "gru" else {}
    node = helper.make_node(
        cell.upper(),
        ["x", "W", "R", "B", "", *given],
        ["" if step else "y", *returned],
        hidden_size=h,
        **options,
    )

    def info(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [node],
        "layer",
        [info("x", [None, None, d]), *(info(name, [1, 1, h]) for name in given)],
        [info(name, [1, 1, h]) for name in returned] if step else [info("y", [None, 1, None, h])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )


_OTHERS: dict[str, Any] = {"torch": TorchContender, "jax": JaxContender, "onnxruntime": OnnxRuntimeContender}

CONTENDERS = (*BACKEND_NAMES, *_OTHERS)


def contenders_of(operation: str, dtype: str) -> list[str]:
    """The contenders that do `operation`: ONNX Runtime has float32 and no gradients."""
    return [
        name
        for name in CONTENDERS
        if name != "onnxruntime" or (operation == "forward" and dtype == "float32")
    ]


def describe(contender: str, operation: str, problem: Problem, threads: int) -> dict[str, Any]:
    """What a row of results says of itself, as JSON."""
    return {
        "suite": "gated", "kind": kind_of(contender), "operation": operation, "cell": problem.cell, "h": problem.h,
        "T": problem.T, "N": problem.N, "dtype": problem.dtype, "threads": threads, "contender": contender,
        "multiply_adds": problem.multiply_adds * (1 if operation == "forward" else 3),
    }  # fmt: skip


def checked_call(contender: str, operation: str, problem: Problem, threads: int) -> Callable[[], Any]:
    """The call to time: built, run once, which compiles what is to be compiled, its result checked.

    Raises
    ------
    Unavailable
        If the contender is not installed.
    WrongResult
        If its result is not that of the NumPy kernels in float64.
    """
    require(contender)
    if contender in BACKEND_NAMES:
        built: Any = FastrnnContender(problem, threads, contender)
    else:
        built = _OTHERS[contender](problem, threads)
    expected = _expected(problem.cell, problem.h, problem.T, problem.N)
    return checked(built, contender, operation, problem, expected)


def checked(
    built: Any, contender: str, operation: str, problem: Problem, expected: list[np.ndarray]
) -> Callable[[], Any]:
    """The call of a contender that was `built`, run once, its result compared with what is `expected`.

    Raises
    ------
    WrongResult
        If it is another one.
    """
    where = f"{contender}: {operation} of {problem.cell}, h={problem.h} T={problem.T} N={problem.N} {problem.dtype}"
    if operation == "forward":
        call: Callable[[], Any] = built.forward
        got, expected = [built.outputs(call())], expected[:1]
    else:
        call = built.both
        got = built.result(call())
    check_result(where, operation, got, expected, TOLERANCE[problem.dtype], 1.0)
    call()
    return call


@functools.cache
def _expected(cell: str, h: int, T: int, N: int) -> list[np.ndarray]:
    """Outputs and gradients by the NumPy kernels in float64, which the tests hold to plain loops."""
    contender = FastrnnContender(Problem(cell, h, T, N, "float64"), 1, "numpy")
    return contender.result(contender.both())
