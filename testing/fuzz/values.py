"""Random sizes, numbers and indices of one case."""

from __future__ import annotations

#: Around the widths of SIMD vectors, small ones more often.
SIZES = (1, 1, 2, 2, 3, 3, 4, 5, 7, 7, 8, 8, 9, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)

IGNORED = -100


class Draw:
    """Draws of one case: all of them from one generator."""

    def __init__(self, rng):
        self.rng = rng

    def integer(self, low, high):
        """From `low` to `high`, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, p):
        return self.rng.random() < p

    def pick(self, things):
        return things[int(self.rng.integers(len(things)))]

    def size(self, largest=65):
        return min(self.pick(SIZES), largest)

    def seed(self):
        return self.integer(0, 2**31)

    def steps_and_sequences(self, hidden, empty=True):
        """T and N of a batch that does not take long."""
        T = self.pick((1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 20))
        N = self.pick((1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 18, 24, 31, 32, 33, 40))
        while T * N * hidden > 6000 and (T > 1 or N > 1):
            T, N = (T, (N + 1) // 2) if N > 1 and (T == 1 or self.chance(0.5)) else ((T + 1) // 2, N)
        return T, 0 if empty and self.chance(0.02) else N

    def real(self, shape, dtype):
        """Normal numbers, sometimes far from 1 together, or some that narrower dtypes hold too."""
        style = self.rng.random()
        if style < 0.04:
            return (self.rng.normal(size=shape) * 10.0 ** self.integer(-12, 12)).astype(dtype)
        if style < 0.55:
            return self.rng.normal(size=shape).astype(dtype)
        if style < 0.85:
            return (self.rng.integers(-16, 17, shape) / 8).astype(dtype)
        return self.rng.integers(-2, 3, shape).astype(dtype)

    def classes(self, shape, bound):
        """Class indices, negative ones as well."""
        return self.rng.integers(-bound if self.chance(0.5) else 0, bound, shape)

    def targets(self, shape, bound):
        """Classes from 0 on, some of which do not count."""
        y = self.rng.integers(0, bound, shape)
        if self.chance(0.3):
            y[self.rng.random(shape) < 0.3] = IGNORED
        return y

    def lengths(self, T, N):
        return self.rng.integers(1, T + 1, N)
