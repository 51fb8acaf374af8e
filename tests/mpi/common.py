"""What the programs of this folder share."""

import hashlib
import json
import sys

import numpy as np

from fastrnn import distributed


def digest(arrays):
    return hashlib.sha256(
        b"".join(np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays))
    ).hexdigest()


def refused(function):
    """Type and message of what a call raises, as JSON has it."""
    try:
        function()
    except Exception as error:  # noqa: BLE001 - is told
        return [type(error).__name__, str(error)]
    return None


def tell(comm, value):
    """Print what each rank has to say, as a list."""
    told = comm.each(value)
    if comm.rank == 0:
        json.dump(told, sys.stdout)


def ranks(**options):
    return distributed.mpi(**options)
