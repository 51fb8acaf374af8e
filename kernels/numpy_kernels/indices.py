"""Class indices and targets as users give them, checked and copied for the kernels."""

import numpy as np


def wrap_indices(indices, bound, out):
    """Copy class indices to `out`, negative ones counted from the end.

    Returns the position of the first index outside ``[-bound, bound)``, or -1.
    """
    np.add(indices, np.where(indices < 0, bound, 0), out=out)
    bad = (out < 0) | (out >= bound)
    return int(bad.argmax()) if bad.any() else -1


def copy_targets(targets, bound, ignored, out):
    """Copy targets to `out`, -1 where they equal `ignored`: those do not count.

    Returns how many count; or ``-1 - position`` of the first that is neither `ignored` nor in
    ``[0, bound)``.
    """
    out[:] = targets
    out[targets == ignored] = -1
    bad = (out >= bound) | ((targets < 0) & (targets != ignored))
    return -1 - int(bad.argmax()) if bad.any() else int(np.count_nonzero(out >= 0))
