"""PyTorch and JAX at the same batches, each in the best forms found for it.

A library is loaded when its contender is built.  What a peer needs once (arrays on its device, compiled
programs, one-hot rows, the uniforms of sampling) is made outside the timed calls.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from problems import CLAMP, NAMES, STILL_LR, Batch
from sizes import VOCABULARY


class TorchModel:
    """`torch.nn.RNN`, or `GRU` or `LSTM`, on one-hot rows, and a linear layer.

    Parameters
    ----------
    parameters : dict of ndarray
        Under `NAMES`; the rows of ``weight_hh_l0`` say how many gates there are.
    threads : int
    """

    def __init__(self, parameters: dict[str, np.ndarray], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        q, h = parameters["weight_out"].shape
        dtype = torch.from_numpy(parameters["weight_out"]).dtype
        layers = {1: torch.nn.RNN, 3: torch.nn.GRU, 4: torch.nn.LSTM}
        self._rnn = layers[len(parameters["weight_hh_l0"]) // h](q, h, dtype=dtype)
        self._out = torch.nn.Linear(h, q, dtype=dtype)
        self.parameters = [*self._rnn.parameters(), *self._out.parameters()]
        with torch.no_grad():
            for W, name in zip(self.parameters, NAMES, strict=True):
                W.copy_(torch.from_numpy(parameters[name]))
        self._one_hot = torch.eye(q, dtype=dtype)

    def states(self, x: Any, h0: Any) -> tuple[Any, Any]:
        """States (T, N, h) and the last one (1, N, h)."""
        return self._rnn(self._one_hot[x], h0)

    def logits(self, x: Any, h0: Any) -> tuple[Any, Any]:
        """Logits (T, N, q) and the last state (1, N, h)."""
        hs, h_n = self.states(x, h0)
        return self._out(hs), h_n

    def loss(self, x: Any, y: Any, h0: Any) -> tuple[Any, Any]:
        """Mean cross-entropy and the last state (1, N, h)."""
        logits, h_n = self.logits(x, h0)
        return self.torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()), h_n


class TorchLoopModel(TorchModel):
    """The same with a Python loop over the time steps, which can look one-hot inputs up."""

    def states(self, x: Any, h0: Any) -> tuple[Any, Any]:
        torch = self.torch
        W_ih, W_hh, b_ih, b_hh = self.parameters[:4]
        from_inputs = torch.nn.functional.embedding(x, W_ih.t()) + (b_ih + b_hh)
        h, hs, W_hh = h0[0], [], W_hh.t()
        for z in from_inputs.unbind(0):
            h = torch.tanh(torch.addmm(z, h, W_hh))
            hs.append(h)
        return torch.stack(hs), h[None]


class TorchContender:
    """A `TorchModel` under autograd with `clip_grad_value_` and the fused `torch.optim.SGD`."""

    model_class = TorchModel

    def __init__(self, batch: Batch, threads: int) -> None:
        self._model = self.model_class(batch.parameters, threads)
        torch = self._torch = self._model.torch
        self._optimizer = torch.optim.SGD(self._model.parameters, lr=STILL_LR, fused=True)
        self._x, self._y, self._start = (
            torch.from_numpy(np.ascontiguousarray(a)) for a in (batch.x, batch.y, batch.start)
        )
        self._h0 = torch.zeros(1, batch.N, batch.h, dtype=getattr(torch, batch.dtype))
        self._uniforms = torch.from_numpy(batch.uniforms.astype(batch.dtype)).unsqueeze(2)

    def set_lr(self, lr: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def train_step(self) -> tuple:
        loss, h_n = self._model.loss(self._x, self._y, self._h0)
        self._optimizer.zero_grad()
        loss.backward()
        self._torch.nn.utils.clip_grad_value_(self._model.parameters, CLAMP)
        self._optimizer.step()
        return loss.item(), h_n

    def forward(self) -> tuple:
        with self._torch.inference_mode():
            return self._model.logits(self._x, self._h0)

    def sample(self) -> tuple:
        torch = self._torch
        with torch.inference_mode():
            W_ih, W_hh, b_ih, b_hh, W, b = self._model.parameters
            columns, W_hh, W = W_ih.t() + (b_ih + b_hh), W_hh.t(), W.t()
            h, index, drawn = self._h0[0], self._start, []
            for u in self._uniforms:
                h = torch.tanh(torch.addmm(columns[index], h, W_hh))
                cdf = torch.cumsum(torch.softmax(torch.addmm(b, h, W), dim=1), dim=1)
                index = torch.searchsorted(cdf, u, right=True)[:, 0].clamp_(max=VOCABULARY - 1)
                drawn.append(index)
            return torch.stack(drawn, dim=1), h

    def result(self, operation: str, returned: Any) -> list[np.ndarray]:
        if operation == "train_step":
            return [np.asarray(returned[0]), *(W.detach().numpy() for W in self._model.parameters)]
        return [returned[0].numpy()]


class TorchLoopContender(TorchContender):
    """The same with a `TorchLoopModel`."""

    model_class = TorchLoopModel


class JaxContender:
    """`jit` of `lax.scan`: inputs are look-ups before the scan, logits one product after it, parameters
    stay on the device and are donated to the step, dispatch is synchronous; gradients by `jax.grad`.

    Of the forms tried (a product in place of look-ups, unrolled by 4 or not, the recurrent matrix
    transposed or not) this is the fastest or within noise of it.
    """

    own_backward = False

    #: The recurrent matrix is transposed before the loop, behind a barrier; else in each step, and by XLA as it likes.
    transposed_before = False

    def __init__(self, batch: Batch, threads: int) -> None:
        # The process was bound to `threads` cores before XLA made its pool (thread_limits.py).
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        self._jax = jax
        self._parameters = tuple(jnp.asarray(batch.parameters[name]) for name in NAMES)
        self._x, self._y, self._start = (jnp.asarray(a, jnp.int32) for a in (batch.x, batch.y, batch.start))
        self._h0 = jnp.zeros((batch.N, batch.h), batch.dtype)
        self._uniforms = jnp.asarray(batch.uniforms, batch.dtype)[:, :, None]
        self._dtype = batch.dtype
        self.set_lr(STILL_LR)

        def recurrence(z: Any, W_hh: Any, h0: Any) -> tuple[Any, Any]:
            recurrent = jax.lax.optimization_barrier(W_hh.T) if self.transposed_before else None

            def step(h: Any, z: Any) -> tuple[Any, Any]:
                h = jnp.tanh(z + h @ (W_hh.T if recurrent is None else recurrent))
                return h, h

            return jax.lax.scan(step, h0, z)

        differentiable = _with_own_backward(recurrence) if self.own_backward else recurrence

        def forward(parameters: Any, x: Any, h0: Any) -> tuple[Any, Any]:
            W_ih, W_hh, b_ih, b_hh, W, b = parameters
            h_n, hs = differentiable(W_ih.T[x] + (b_ih + b_hh), W_hh, h0)
            return hs @ W.T + b, h_n

        def loss(parameters: Any, x: Any, y: Any, h0: Any) -> tuple[Any, Any]:
            logits, h_n = forward(parameters, x, h0)
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, :, None], 2).mean(), h_n

        def train_step(parameters: Any, x: Any, y: Any, h0: Any, lr: Any) -> tuple:
            (value, h_n), grads = jax.value_and_grad(loss, has_aux=True)(parameters, x, y, h0)
            moved = jax.tree.map(lambda W, g: W - lr * jnp.clip(g, -CLAMP, CLAMP), parameters, grads)
            return moved, value, h_n

        def sample(parameters: Any, h0: Any, start: Any, uniforms: Any) -> tuple[Any, Any]:
            W_ih, W_hh, b_ih, b_hh, W, b = parameters
            columns = W_ih.T + (b_ih + b_hh)

            def step(carry: Any, u: Any) -> tuple[Any, Any]:
                h, index = carry
                h = jnp.tanh(columns[index] + h @ W_hh.T)
                cdf = jnp.cumsum(jax.nn.softmax(h @ W.T + b), axis=1)
                index = (cdf <= u * cdf[:, -1:]).sum(axis=1, dtype=jnp.int32)
                return (h, index), index

            (h_n, _), drawn = jax.lax.scan(step, (h0, start), uniforms)
            return drawn.T, h_n

        self._forward = jax.jit(forward)
        self._train_step = jax.jit(train_step, donate_argnums=0)
        self._sample = jax.jit(sample)

    def set_lr(self, lr: float) -> None:
        self._lr = self._jax.numpy.asarray(lr, self._dtype)

    def train_step(self) -> tuple:
        self._parameters, loss, h_n = self._jax.block_until_ready(
            self._train_step(self._parameters, self._x, self._y, self._h0, self._lr)
        )
        return loss, h_n

    def forward(self) -> tuple:
        return self._jax.block_until_ready(self._forward(self._parameters, self._x, self._h0))

    def sample(self) -> tuple:
        return self._jax.block_until_ready(
            self._sample(self._parameters, self._h0, self._start, self._uniforms)
        )

    def result(self, operation: str, returned: Any) -> list[np.ndarray]:
        if operation == "train_step":
            # Copies: the next step is given these parameters' memory.
            return [np.asarray(returned[0]), *(np.array(W) for W in self._parameters)]
        return [np.asarray(returned[0])]


class JaxOwnBackwardContender(JaxContender):
    """The same with the backward pass of the scan written by hand, so that the gradient of the recurrent
    matrix is one product over all time steps; `jax.grad` adds up one product a time step."""

    own_backward = True


def _with_own_backward(recurrence: Any) -> Any:
    import jax
    import jax.numpy as jnp

    def forward(z: Any, W_hh: Any, h0: Any) -> tuple[Any, Any]:
        h_n, hs = recurrence(z, W_hh, h0)
        return (h_n, hs), (hs, W_hh, h0)

    def backward(kept: Any, grads: Any) -> tuple[Any, Any, Any]:
        (hs, W_hh, h0), (grad_h_n, grad_hs) = kept, grads

        def step(dh_next: Any, h_and_grad: Any) -> tuple[Any, Any]:
            h, grad = h_and_grad
            dz = (1 - h * h) * (grad + dh_next)
            return dz @ W_hh, dz

        grad_h0, dz = jax.lax.scan(step, grad_h_n, (hs, grad_hs), reverse=True)
        before = jnp.concatenate([h0[None], hs[:-1]])
        return dz, jnp.einsum("tnj,tni->ji", dz, before), grad_h0

    own = jax.custom_vjp(recurrence)
    own.defvjp(forward, backward)
    return own


CONTENDERS = {
    "torch": TorchContender,
    "torch, own loop": TorchLoopContender,
    "jax": JaxContender,
    "jax, own backward": JaxOwnBackwardContender,
}
