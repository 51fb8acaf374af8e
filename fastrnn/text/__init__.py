"""Texts for `fastrnn.CharRNN`: reading, vocabulary, batches, training, sampling, scoring, and files of models."""

from fastrnn.text.reading import standard_library_source

__all__ = ["standard_library_source"]
