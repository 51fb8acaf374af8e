"""Files of models taken apart, and put together with what no model has in it, under a digest that is right."""

import json

from fastrnn.checkpoint import FORMAT_VERSION, _digest


def header_of(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def signed(path, content, arrays):
    """A file with a digest that is right, of content that is text already."""
    entries, place = {}, 0
    for name, array in arrays.items():
        entries[name] = {"dtype": {4: "F32", 8: "F64"}[array.itemsize], "shape": array.shape,
                         "data_offsets": [place, place + array.nbytes]}  # fmt: skip
        place += array.nbytes
    metadata = {"format": "fastrnn", "format_version": str(FORMAT_VERSION), "content": content,
                "sha256": _digest(content, arrays)}  # fmt: skip
    path.write_bytes(
        with_header(
            {"__metadata__": metadata, **entries}, b"".join(array.tobytes() for array in arrays.values())
        )
    )


def deep(n):
    """Dicts within each other."""
    nested = {}
    for _ in range(n):
        nested = {"a": nested}
    return nested
