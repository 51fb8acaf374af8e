"""The errors that are fastrnn's own; everything else raises Python's `ValueError`, `TypeError` and
`IndexError`."""

__all__ = ["BackendUnavailable"]


class BackendUnavailable(RuntimeError):
    """A backend that was asked for by name cannot be used here; the message says how to get it."""
