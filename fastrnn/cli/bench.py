"""The command `fastrnn bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fastrnn.backends import BACKENDS
from fastrnn.cli.help import Command, option
from fastrnn.cli.shared import BACKEND, DTYPE, POSITIVE, SIZE, echo_json, get_kernels_ready, json_option, say
from fastrnn.errors import BackendUnavailable

if TYPE_CHECKING:
    from fastrnn.cli.comparison import Row

__all__ = ["bench"]

#: Hidden sizes and time steps that `bench` measures when none are named.
BENCH_SIZES = ((32, 100), (100, 4), (100, 25), (100, 100), (256, 100))


@click.command(cls=Command)
@option("--hidden-size", type=SIZE, multiple=True, help="Hidden size h; may be given several times.")
@option("--seq-len", type=SIZE, multiple=True, help="Time steps T; may be given several times.")
@option(
    "--dtype", type=DTYPE, multiple=True, show_default="float64",
    help="Precision of the backends; may be given twice.",
)  # fmt: skip
@option(
    "--backend", type=BACKEND, multiple=True, show_default="all that are here",
    help="Kernels to measure; may be given several times.",
)  # fmt: skip
@option("--seconds", type=POSITIVE, default=0.2, help="Measuring time of each number.")
@json_option
def bench(
    hidden_size: tuple[int, ...],
    seq_len: tuple[int, ...],
    dtype: tuple[str, ...],
    backend: tuple[str, ...],
    seconds: float,
    as_json: bool,
) -> None:
    """Time the backends beside the reference loop.

    \b
    Examples:
      fastrnn bench
      fastrnn bench --hidden-size 100 --hidden-size 512 --seq-len 25
      fastrnn bench --dtype float32 --backend numba --json

    On this machine, one sequence of characters (65 different ones), one thread. Each result is checked against the
    reference before it is timed. The reference is a plain NumPy loop, one small operation at a time, in
    float64; the numbers are microseconds for a time step, and how many times as fast that is.
    """
    from fastrnn.cli.comparison import Disagreement, compare

    dtypes = dtype or ("float64",)
    found = backend or _available_backends()
    for name in found:
        for one in dtypes:
            get_kernels_ready(name, one)
    if hidden_size or seq_len:
        hs = hidden_size or sorted({h for h, _ in BENCH_SIZES})
        Ts = seq_len or sorted({T for _, T in BENCH_SIZES})
        sizes = [(h, T) for h in hs for T in Ts]
    else:
        sizes = list(BENCH_SIZES)
    rows = compare(sizes, dtypes, found, seconds)
    try:
        if as_json:
            echo_json({"rows": [_json_row(row) for row in rows]})
            return
        click.echo("Microseconds a time step, and how many times as fast as the reference.")
        click.echo(
            f"{'operation':<10} {'dtype':<7} {'h':>4} {'T':>4} {'reference':>9}"
            + "".join(f"  {name:>12}" for name in found)
        )
        for row in rows:
            click.echo(_table_line(row))
    except Disagreement as error:
        raise click.ClickException(str(error)) from None


def _table_line(row: Row) -> str:
    scale = 1e6 / row.seq_len
    cells = "".join(f" {scale * s:7.2f} {row.reference / s:4.1f}x" for s in row.backends.values())
    return (
        f"{row.operation:<10} {row.dtype:<7} {row.hidden_size:>4} {row.seq_len:>4} "
        f"{scale * row.reference:>9.2f}{cells}"
    )


def _json_row(row: Row) -> dict[str, Any]:
    """Times in microseconds for a time step."""
    scale = 1e6 / row.seq_len
    return {
        "operation": row.operation,
        "dtype": row.dtype,
        "hidden_size": row.hidden_size,
        "seq_len": row.seq_len,
        "reference_us": scale * row.reference,
        "backends": {name: {"us": scale * s, "ratio": row.reference / s} for name, s in row.backends.items()},
    }


def _available_backends() -> tuple[str, ...]:
    from fastrnn.backends import load

    found = []
    for name in BACKENDS:
        try:
            load(name)
        except BackendUnavailable as error:
            say(f"Left out: {error}")
        else:
            found.append(name)
    return tuple(found)
