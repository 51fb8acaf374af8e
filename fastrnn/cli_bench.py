"""The command `fastrnn bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fastrnn.backends import BACKENDS
from fastrnn.cli_shared import BACKEND, DTYPE, SIZE, get_kernels_ready, positive
from fastrnn.errors import BackendUnavailable

if TYPE_CHECKING:
    from fastrnn.bench import Row

__all__ = ["bench"]

#: Hidden sizes and time steps that `bench` measures when none are named.
BENCH_SIZES = ((32, 100), (100, 4), (100, 25), (100, 100), (256, 100))


@click.command()
@click.option("--hidden-size", type=SIZE, multiple=True, help="Hidden size h; may be given several times.")
@click.option("--seq-len", type=SIZE, multiple=True, help="Time steps T; may be given several times.")
@click.option(
    "--dtype",
    type=DTYPE,
    multiple=True,
    help="Precision of the backends; may be given twice.  [default: float64]",
)
@click.option(
    "--backend",
    type=BACKEND,
    multiple=True,
    help="Kernels to measure; may be given several times.  [default: all that are here]",
)
@click.option("--seconds", type=float, callback=positive, default=0.2, help="Measuring time of each number.")
def bench(
    hidden_size: tuple[int, ...],
    seq_len: tuple[int, ...],
    dtype: tuple[str, ...],
    backend: tuple[str, ...],
    seconds: float,
) -> None:
    """Time the backends beside the reference loop, on this machine.

    One sequence of characters (65 different ones), one thread. Each result is checked against the
    reference before it is timed. The reference is the study notes' plain NumPy loop in float64; the
    numbers are microseconds for a time step, and how many times as fast that is.

    \b
    Examples:
      fastrnn bench
      fastrnn bench --hidden-size 100 --hidden-size 512 --seq-len 25
      fastrnn bench --dtype float32 --backend numba
    """
    from fastrnn.bench import Disagreement, compare

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
    click.echo("Microseconds a time step, and how many times as fast as the reference loop; one thread.")
    click.echo(
        f"{'operation':<10}  {'dtype':<7}  {'h':>6}  {'T':>6}  {'reference':>9}"
        + "".join(f"  {name:>16}" for name in found)
    )
    try:
        for row in compare(sizes, dtypes, found, seconds):
            click.echo(_table_line(row))
    except Disagreement as error:
        raise click.ClickException(str(error)) from None


def _table_line(row: Row) -> str:
    scale = 1e6 / row.seq_len
    cells = "".join(f"  {scale * s:8.2f} {row.reference / s:6.1f}x" for s in row.backends.values())
    return (
        f"{row.operation:<10}  {row.dtype:<7}  {row.hidden_size:>6}  {row.seq_len:>6}  "
        f"{scale * row.reference:>9.2f}{cells}"
    )


def _available_backends() -> tuple[str, ...]:
    from fastrnn.backends import load

    found = []
    for name in BACKENDS:
        try:
            load(name)
        except BackendUnavailable as error:
            click.echo(f"Left out: {error}", err=True)
        else:
            found.append(name)
    return tuple(found)
