"""The order in which micro-batches are tried: the predicted one first, then towards the border between those that fit
and those that do not, by what the measured ones held. Pure: it is told what happened and says what is next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True)
class BatchSearch:
    """candidates: ascending. limit_bytes: None where only a failure shows that there is no more. guess: the index that
    is predicted to be the largest that fits. bytes_each: predicted for each sequence more; None where unknown. Whether
    it fits, and the bytes that it held, by index."""

    candidates: Sequence[int]
    limit_bytes: int | None
    guess: int
    bytes_each: float | None = None
    fits: dict[int, bool] = field(default_factory=dict)
    held: dict[int, float] = field(default_factory=dict)

    @property
    def largest(self) -> int:
        """Index of the largest that is known to fit; -1 if none is."""
        return max((at for at, is_fitting in self.fits.items() if is_fitting and at < self.border), default=-1)

    @property
    def border(self) -> int:
        """Index of the smallest that is known not to fit; the number of candidates if none is."""
        return min((at for at, is_fitting in self.fits.items() if not is_fitting), default=len(self.candidates))

    def record(self, index: int, is_fitting: bool, held_bytes: float | None) -> None:
        self.fits[index] = is_fitting
        if held_bytes is not None and is_fitting:
            self.held[index] = held_bytes

    def choose_next(self) -> int | None:
        """The index to try next; None where the border is found."""
        low, high = self.largest, self.border
        if high - low <= 1:
            return None
        if not self.fits:
            return min(max(self.guess, 0), len(self.candidates) - 1)
        expected = self._extrapolate()
        if expected is not None:
            # Just on either side of where the limit is expected, whichever is not known yet.
            return min(max(expected if expected > low else low + 1, low + 1), high - 1)
        if low < 0:
            return high // 2
        if high == len(self.candidates):
            doubled = [at for at in range(low + 1, high) if self.candidates[at] >= 2 * self.candidates[low]]
            return doubled[0] if doubled else high - 1
        return (low + high) // 2

    def _extrapolate(self) -> int | None:
        """Index of the largest candidate that a line puts within the limit: through the two largest that were measured,
        or through the only one, as steep as predicted."""
        if self.limit_bytes is None or not self.held:
            return None
        *_, last = sorted(self.held)
        slope = self.bytes_each or 0.0
        if len(self.held) > 1:
            first = sorted(self.held)[-2]
            slope = (self.held[last] - self.held[first]) / (self.candidates[last] - self.candidates[first])
        if slope <= 0:
            return None
        most = self.candidates[last] + (self.limit_bytes - self.held[last]) / slope
        return max((at for at, size in enumerate(self.candidates) if size <= most), default=-1)
