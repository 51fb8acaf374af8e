"""Class indices and targets as users give them, checked and copied for the kernels."""

from fastrnn.kernels.numba_kernels.jit import kernel


@kernel
def _wrap(indices, bound, out):
    """`wrap_indices`."""
    bad = -1
    for i in range(len(indices)):
        index = indices[i]
        wrapped = index + bound if index < 0 else index
        if wrapped < 0 or wrapped >= bound:
            bad = i
            break
        out[i] = wrapped
    return bad


@kernel
def _targets(targets, bound, ignored, out):
    """`copy_targets`."""
    counted = 0
    for i in range(len(targets)):
        target = targets[i]
        if target == ignored:
            target = -1
        elif target < 0 or target >= bound:
            counted = -1 - i
            break
        else:
            counted += 1
        out[i] = target
    return counted


def wrap_indices(indices, bound, out):
    """Copy class indices to `out`, negative ones counted from the end.

    Returns the position of the first index outside ``[-bound, bound)``, or -1.
    """
    return _wrap(indices, bound, out)


def copy_targets(targets, bound, ignored, out):
    """Copy targets to `out`, -1 where they equal `ignored`: those do not count.

    Returns how many count; or ``-1 - position`` of the first that is neither `ignored` nor in
    ``[0, bound)``.
    """
    return _targets(targets, bound, ignored, out)
