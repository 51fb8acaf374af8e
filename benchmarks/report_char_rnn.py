"""The report's part about `CharRNN`: a table from the rows of `char_rnn.py`."""

from __future__ import annotations

from results import Results, Row
from tables import seconds_text, table, times

#: Suite -> what was done, and the unit of its time.
_WHAT = {
    "char_rnn train": ("training, milliseconds a step, validation included", "{:.3g}", 1e3),
    "char_rnn notes": ("min-char-rnn's settings, characters per second", "{:,.0f}", None),
    "char_rnn sample": ("sampling one stream, characters per second", "{:,.0f}", None),
}


def parts(results: Results) -> list[str]:
    """The Markdown; nothing where `CharRNN` was not measured."""
    found = [_against_others(results), _waiting(results)]
    if not any(found):
        return []
    return ["## `CharRNN`", *(part for part in found if part)]


def _against_others(results: Results) -> str:
    body = []
    for suite, (what, text, scale) in _WHAT.items():
        rows = results.suite(suite)
        for dtype, cell in dict.fromkeys((row.dtype, row.cell) for row in rows):
            some = [row for row in rows if (row.dtype, row.cell) == (dtype, cell)]
            ours = next((row for row in some if row.contender == "CharRNN"), None)
            if ours is None:
                continue
            others = [row for row in some if row is not ours]
            for other in others or [None]:
                body.append(
                    [
                        what,
                        _setting(ours),
                        _figure(ours, text, scale),
                        other.contender if other else "",
                        _figure(other, text, scale) if other else "",
                        times(other.seconds / ours.seconds) if other else "",
                    ]
                )
    if not body:
        return ""
    head = ["", "setting", "CharRNN", "against", "its figure", "times faster"]
    return (
        "`CharRNN.fit`, everything included, taking turns with a PyTorch loop that has the same first weights, "
        "chunks and settings (in brackets the loss on the same validation part, in nats per character), and "
        f"with the reference loop, to which Adagrad was added in plain NumPy:\n\n{table(head, body, left=2)}"
    )


def _setting(row: Row) -> str:
    parts = [*([row.cell.upper()] if row.cell not in ("", "rnn") else []), f"h={row.h}"]
    if row.text:
        parts += (
            [f"T={row.T}", f"N={row.N}", f"{row.steps} steps"] if row.steps else [f"T={row.T}", f"N={row.N}"]
        )
    threads = f"{row.threads} thread{'s' if row.threads > 1 else ''}"
    return ", ".join([*parts, row.dtype, threads, *filter(None, [row.text])])


def _figure(row: Row, text: str, scale: float | None) -> str:
    figure = text.format(row.seconds * scale if scale else 1 / row.seconds)
    return f"{figure} ({row.nats:.3f})" if row.nats else figure


def _waiting(results: Results) -> str:
    rows = results.suite("char_rnn wait")
    if not rows:
        return ""
    return table(
        ["waiting for", "time"], [[row.contender, seconds_text(row.seconds)] for row in rows], left=1
    )
