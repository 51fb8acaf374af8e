"""The version, for all that must not import the package's face to know it."""

__version__ = "0.2.0"
