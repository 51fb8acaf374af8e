"""`fastrnn.text.standard_library_source` under the name that it had in version 0.2."""

from fastrnn.text.reading import standard_library_source

__all__ = ["standard_library_source"]
