"""PyTorch, JAX and ONNX Runtime at the same work, each in the best form found for it, on one thread.

A library is loaded when its contender is built.  What a peer needs once (arrays on its device,
compiled programs, one-hot rows) is made outside the timed calls.  All clamp
gradients once, after the loop; a clamp at every time step is not to be had from them.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from problems import CLAMP, STILL_LR, WEIGHT_NAMES, Problem
from sizes import VOCABULARY


class TorchContender:
    """`torch.nn.RNN` and a linear layer, cross-entropy, autograd, clamp, gradient descent."""

    clips_once = True

    def __init__(self, problem: Problem) -> None:
        import torch

        torch.set_num_threads(1)
        self._torch = torch
        self.lr = STILL_LR
        dtype = getattr(torch, problem.dtype)
        self._rnn = torch.nn.RNN(VOCABULARY, problem.h, dtype=dtype)
        self._out = torch.nn.Linear(problem.h, VOCABULARY, dtype=dtype)
        self._parameters = [
            self._rnn.weight_ih_l0,
            self._rnn.weight_hh_l0,
            self._out.weight,
            self._rnn.bias_ih_l0,
            self._out.bias,
        ]
        with torch.no_grad():
            for W, name in zip(self._parameters, WEIGHT_NAMES, strict=True):
                W.copy_(torch.from_numpy(problem.weights[name].reshape(W.shape)))
            self._rnn.bias_hh_l0.zero_()
        # One bias is enough, as in the notes.
        self._rnn.bias_hh_l0.requires_grad_(False)
        self._one_hot = torch.eye(VOCABULARY, dtype=dtype)
        self._inputs = torch.tensor(problem.inputs)
        self._targets = torch.tensor(problem.targets)
        self._h_prev = torch.zeros(1, problem.h, dtype=dtype)
        self._start = problem.start
        self._uniforms = torch.tensor(problem.uniforms, dtype=dtype)

    def _loss(self) -> tuple[Any, Any]:
        hs, h_last = self._rnn(self._one_hot[self._inputs], self._h_prev)
        logits = self._out(hs)
        return self._torch.nn.functional.cross_entropy(logits, self._targets, reduction="sum"), h_last

    def forward(self) -> Any:
        with self._torch.inference_mode():
            hs, _ = self._rnn(self._one_hot[self._inputs], self._h_prev)
            return self._torch.softmax(self._out(hs), dim=1)

    @functools.cached_property
    def _graph(self) -> Any:
        return self._loss()[0]

    def backward(self) -> Any:
        grads = self._torch.autograd.grad(self._graph, self._parameters, retain_graph=True)
        for g in grads:
            g.clamp_(-CLAMP, CLAMP)
        return grads

    def train_step(self) -> Any:
        loss, h_last = self._loss()
        grads = self._torch.autograd.grad(loss, self._parameters)
        with self._torch.no_grad():
            for W, g in zip(self._parameters, grads, strict=True):
                W.sub_(g.clamp_(-CLAMP, CLAMP), alpha=self.lr)
        return loss.item(), h_last

    def sample(self) -> list[int]:
        torch = self._torch
        with torch.inference_mode():
            columns, Whh, Why, bh, by = self._parameters
            columns = columns.t()
            h, index, indices = self._h_prev[0], self._start, []
            for u in self._uniforms:
                h = torch.tanh(torch.addmv(columns[index] + bh, Whh, h))
                cdf = torch.cumsum(torch.softmax(torch.addmv(by, Why, h), dim=0), dim=0)
                index = min(int(torch.searchsorted(cdf, u, right=True)), VOCABULARY - 1)
                indices.append(index)
            return indices

    def result(self, operation: str, returned: Any) -> list[np.ndarray]:
        if operation == "forward":
            return [returned.numpy()]
        if operation == "sample":
            return [np.asarray(returned)]
        if operation == "backward":
            return _as_columns([g.numpy() for g in returned])
        return [np.asarray(returned[0]), *_as_columns([W.detach().numpy() for W in self._parameters])]


class JaxContender:
    """`jit` of `lax.scan`: inputs are column look-ups before the scan, logits one product after it,
    parameters stay on the device and are donated to the step, dispatch is synchronous.

    Of the forms tried (logits and look-ups inside or outside the scan, unrolled by 4 or not, donated
    or not, synchronous or not) this is the fastest or within noise of it at the report's sizes.
    """

    clips_once = True

    def __init__(self, problem: Problem) -> None:
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        self._jax, self._jnp = jax, jnp
        Wxh, Whh, Why, bh, by = (problem.weights[name] for name in WEIGHT_NAMES)
        arrays = Wxh.T, Whh, Why, bh[:, 0], by[:, 0]
        self._parameters = tuple(jnp.asarray(np.ascontiguousarray(a)) for a in arrays)
        self._dtype = problem.dtype
        self.lr = STILL_LR
        self._inputs = jnp.asarray(problem.inputs, jnp.int32)
        self._targets = jnp.asarray(problem.targets, jnp.int32)
        self._h_prev = jnp.zeros(problem.h, problem.dtype)
        self._start = jnp.asarray(problem.start, jnp.int32)
        self._uniforms = jnp.asarray(problem.uniforms, problem.dtype)
        unroll = problem.T <= 4

        def logits(parameters: Any, inputs: Any, h_prev: Any) -> tuple[Any, Any]:
            columns, Whh, Why, bh, by = parameters

            def step(h: Any, from_input: Any) -> tuple[Any, Any]:
                h = jnp.tanh(from_input + Whh @ h)
                return h, h

            h_last, hs = jax.lax.scan(step, h_prev, columns[inputs] + bh, unroll=unroll)
            return hs @ Why.T + by, (h_last, hs)

        def loss(parameters: Any, inputs: Any, targets: Any, h_prev: Any) -> tuple[Any, Any]:
            y, (h_last, _) = logits(parameters, inputs, h_prev)
            log_p = jax.nn.log_softmax(y)
            return -jnp.take_along_axis(log_p, targets[:, None], 1).sum(), h_last

        def forward(parameters: Any, inputs: Any, h_prev: Any) -> tuple[Any, Any]:
            y, (_, hs) = logits(parameters, inputs, h_prev)
            return hs, jax.nn.softmax(y)

        def clamp(grads: Any) -> Any:
            return jax.tree.map(lambda g: jnp.clip(g, -CLAMP, CLAMP), grads)

        def train_step(parameters: Any, inputs: Any, targets: Any, h_prev: Any, lr: Any) -> tuple:
            (value, h_last), grads = jax.value_and_grad(loss, has_aux=True)(
                parameters, inputs, targets, h_prev
            )
            moved = jax.tree.map(lambda W, g: W - lr * g, parameters, clamp(grads))
            return moved, value, h_last

        def pull_back(parameters: Any, inputs: Any, targets: Any, h_prev: Any) -> Any:
            return jax.vjp(lambda p: loss(p, inputs, targets, h_prev)[0], parameters)[1]

        def sample(parameters: Any, h: Any, start: Any, uniforms: Any) -> Any:
            columns, Whh, Why, bh, by = parameters

            def step(carry: Any, u: Any) -> tuple[Any, Any]:
                h, index = carry
                h = jnp.tanh(columns[index] + Whh @ h + bh)
                cdf = jnp.cumsum(jax.nn.softmax(Why @ h + by))
                index = (cdf <= u * cdf[-1]).sum(dtype=jnp.int32)
                return (h, index), index

            return jax.lax.scan(step, (h, start), uniforms)[1]

        self._forward = jax.jit(forward)
        self._train_step = jax.jit(train_step, donate_argnums=0)
        self._pull_back = jax.jit(pull_back)
        self._backward = jax.jit(lambda pull, one: clamp(pull(one)[0]))
        self._sample = jax.jit(sample)

    @functools.cached_property
    def _pulled(self) -> tuple[Any, Any]:
        pull = self._pull_back(self._parameters, self._inputs, self._targets, self._h_prev)
        return pull, self._jnp.ones((), self._dtype)

    @functools.cache  # noqa: B019 (two values, as long as the contender lives)
    def _lr(self, lr: float) -> Any:
        return self._jnp.asarray(lr, self._dtype)

    def forward(self) -> Any:
        return self._jax.block_until_ready(self._forward(self._parameters, self._inputs, self._h_prev))

    def backward(self) -> Any:
        return self._jax.block_until_ready(self._backward(*self._pulled))

    def train_step(self) -> Any:
        self._parameters, loss, h_last = self._jax.block_until_ready(
            self._train_step(self._parameters, self._inputs, self._targets, self._h_prev, self._lr(self.lr))
        )
        return loss, h_last

    def sample(self) -> Any:
        return self._jax.block_until_ready(
            self._sample(self._parameters, self._h_prev, self._start, self._uniforms)
        )

    def result(self, operation: str, returned: Any) -> list[np.ndarray]:
        if operation == "forward":
            return [np.asarray(returned[1])]
        if operation == "sample":
            return [np.asarray(returned)]
        columns, *others = returned if operation == "backward" else self._parameters
        arrays = _as_columns([np.asarray(a) for a in (columns.T, *others)])
        return arrays if operation == "backward" else [np.asarray(returned[0]), *arrays]


class OnnxRuntimeContender:
    """An ONNX graph of the RNN operator, a matrix product and a softmax; forward only, float32."""

    clips_once = False

    def __init__(self, problem: Problem) -> None:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        h, q = problem.h, VOCABULARY
        W = problem.weights
        constants = {
            "W": W["Wxh"][None],
            "R": W["Whh"][None],
            "B": np.concatenate([W["bh"][:, 0], np.zeros(h, problem.dtype)])[None],
            "Why": np.ascontiguousarray(W["Why"].T),
            "by": W["by"][:, 0],
            "rows": np.asarray([-1, h]),
        }
        nodes = [
            helper.make_node("RNN", ["x", "W", "R", "B", "", "h_prev"], ["Y"], hidden_size=h),
            helper.make_node("Reshape", ["Y", "rows"], ["hs"]),
            helper.make_node("Gemm", ["hs", "Why", "by"], ["y"]),
            helper.make_node("Softmax", ["y"], ["ps"], axis=1),
        ]
        graph = helper.make_graph(
            nodes,
            "rnn",
            [
                helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", 1, q]),
                helper.make_tensor_value_info("h_prev", TensorProto.FLOAT, [1, 1, h]),
            ],
            [
                helper.make_tensor_value_info("hs", TensorProto.FLOAT, ["T", h]),
                helper.make_tensor_value_info("ps", TensorProto.FLOAT, ["T", q]),
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._one_hot = np.eye(q, dtype=problem.dtype)
        self._inputs = np.asarray(problem.inputs)
        self._h_prev = np.zeros((1, 1, h), problem.dtype)
        self.lr = STILL_LR

    def forward(self) -> Any:
        x = self._one_hot[self._inputs][:, None]
        return self._session.run(None, {"x": x, "h_prev": self._h_prev})

    def result(self, operation: str, returned: Any) -> list[np.ndarray]:
        return [returned[1]]


def _as_columns(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Biases as the notes' column vectors."""
    return [a if a.ndim == 2 else a[:, None] for a in arrays]


CONTENDERS = {"torch": TorchContender, "jax": JaxContender, "onnxruntime": OnnxRuntimeContender}
