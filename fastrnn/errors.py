"""The errors that are fastrnn's own; everything else raises Python's `ValueError`, `TypeError` and
`IndexError`."""

__all__ = ["BackendUnavailable", "CheckpointError", "TextError"]


class BackendUnavailable(RuntimeError):
    """A backend that was asked for by name cannot be used here; the message says how to get it."""


class CheckpointError(ValueError):
    """A file that is not a checkpoint, is damaged, or does not fit; the message says what is wrong."""


class TextError(ValueError):
    """A text that cannot be read or cannot be learned; the message says why."""
