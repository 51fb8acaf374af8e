"""The characters of a text as a picture can show them: each by a font that has it, or by a stand-in."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Sign", "as_title", "signs"]

#: Characters that print nothing, and the marks for them.
MARKS = {" ": "\u2423", "\n": "\u23ce", "\t": "\u21e5"}
NAMES = {" ": "blank", "\n": "line break", "\t": "tab"}

#: Marks for fonts that lack those.
_PLAIN_MARKS = {" ": "_", "\n": r"\n", "\t": r"\t"}

#: Fonts that people have for many scripts, the first is looked at first; others follow by their names.
_PREFERRED = (
    "noto sans mono cjk", "noto sans cjk", "source han sans", "wenquanyi", "droid sans fallback", "hiragino",
    "pingfang", "apple sd gothic", "microsoft yahei", "yu gothic", "malgun gothic", "ms gothic", "simhei",
    "ipa", "takao", "arial unicode", "segoe ui symbol", "segoe ui emoji", "noto emoji", "noto sans", "symbola",
    "freesans", "unifont",
)  # fmt: skip

#: These draw a box for everything, nothing without colours, or are for formulas only.
_USELESS = ("last resort", "lastresort", "adobe blank", "color emoji", "stix", "cmr", "cmss", "cmtt")

#: What begins a formula in matplotlib.
_ESCAPED = {"$": r"\$"}


class Sign(NamedTuple):
    """How one label is drawn."""

    text: str
    #: The family of a font, or None for the usual font.
    font: str | None
    #: What `text` is: ``"itself"``, a ``"mark"``, or the hexadecimal code ``"point"`` of a character.
    kind: str


def signs(labels: Iterable[str], family: str) -> list[Sign]:
    """How each label is drawn; one of several characters is taken as it is.

    Parameters
    ----------
    labels : iterable of str
    family : str
        Of the usual font, such as ``"monospace"``.
    """
    labels = list(labels)
    usual = _usual_font(family)
    drawn = {c for c in set(labels) if len(c) == 1 and c not in MARKS and c.isprintable()}
    others = _fonts_that_have({c for c in drawn if not usual.get_char_index(ord(c))})

    def sign(label: str) -> Sign:
        if len(label) != 1:
            return Sign(label, None, "itself")
        if label in MARKS:
            mark = MARKS[label]
            return Sign(mark if usual.get_char_index(ord(mark)) else _PLAIN_MARKS[label], None, "mark")
        if label not in drawn or (label not in others and not usual.get_char_index(ord(label))):
            return Sign(f"{ord(label):04X}", None, "point")
        # An accent by itself would be drawn over the label before it.
        alone = unicodedata.category(label).startswith("M") and label not in others
        return Sign("\u25cc" + label if alone else _ESCAPED.get(label, label), others.get(label), "itself")

    return [sign(label) for label in labels]


def as_title(text: str) -> str:
    """A text such as the name of a file, for a title: without formulas, line breaks, and missing glyphs."""
    usual = _usual_font(None)
    return "".join(
        _ESCAPED.get(c, c) if c.isprintable() and usual.get_char_index(ord(c)) else "\u25a1" for c in text
    )


def _usual_font(family: str | None) -> Any:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return get_font(findfont(FontProperties(family=None if family is None else [family])))


def _fonts_that_have(missing: set[str]) -> dict[str, str]:
    """Families of fonts that are installed, for those of the characters that one of them has."""
    found: dict[str, str] = {}
    if not missing:
        return found
    from matplotlib.font_manager import FontProperties, findfont, fontManager
    from matplotlib.ft2font import FT2Font

    for entry in sorted(fontManager.ttflist, key=_rank):
        if any(name in entry.name.lower() for name in _USELESS):
            continue
        try:
            font = FT2Font(entry.fname)
        except (OSError, RuntimeError):  # removed since matplotlib looked, or of a kind it cannot read
            continue
        has = {c for c in missing if font.scalable and font.get_char_index(ord(c))}
        # What the name of the family leads to may be another file than this.
        if has and Path(findfont(FontProperties(family=[entry.name]))).samefile(entry.fname):
            found |= dict.fromkeys(has, entry.name)
            missing = missing - has
            if not missing:
                break
    return found


def _rank(entry: Any) -> tuple[int, bool, str]:
    name = entry.name.lower()
    place = next((i for i, start in enumerate(_PREFERRED) if name.startswith(start)), len(_PREFERRED))
    regular = entry.style == "normal" and str(entry.weight) in ("400", "normal", "regular", "book")
    return place, not regular, name
