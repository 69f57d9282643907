"""What a log says is what is read, or it is refused: clocks, units, frames and orders of whole logs are generated."""

from __future__ import annotations

import itertools
import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunemark.plugin.claims import LogLine
from tunemark_importers.generic_log import GenericLogReader

# A rate's unit, the factor to tokens per second, and the scope that it says.
_UNITS = (
    ("tokens/s", 1.0, "unknown"), ("tok/sec/GPU", 1.0, "device"), ("tokens per second per device", 1.0, "device"),
    ("K tok/s", 1e3, "unknown"), ("M tokens/min", 1e6 / 60, "unknown"), ("tokens/hour", 1 / 3600, "unknown"),
    ("tok/(gpu*s)", 1.0, "device"), ("total tok/s", 1.0, "job"), ("tok/s/core", 1.0, "device"),
)  # fmt: skip
# A line's frame, and whether it shows seconds that rise by two with each step.
_FRAMES = (
    ("{body}", False),
    ("2025-04-03 10:00:{s:02d},123 INFO {body}", True),
    ("[2025-04-03T10:00:{s:02d}Z] {body}", True),
    ("INFO {body}", False),
    ("rank 0 {body}", False),
    ("[rank0]: {body}", False),
    ("ts=2025-04-03T10:00:{s:02d}Z level=info phase=train {body}", True),
    ("{body} | elapsed 0m {s}s", True),
    ("{body}, timestamp: 17436744{s:02d}.5", True),
    ("(Worker pid=12, ip=10.0.0.1) {body}", False),
)
_EXTRAS = ("grad_norm 0.7", "lr 1e-05", "mem 41.2 GiB", "eta 0:12:11", "val_loss 3.1", "date 2025-04-03", "seed 42")


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(_UNITS), st.sampled_from(_FRAMES), st.integers(1, 999_999), st.sampled_from((", ", " | ", "; ")),
    st.lists(st.sampled_from(_EXTRAS), max_size=3, unique=True), st.booleans(), st.randoms(use_true_random=False),
)  # fmt: skip
def test_a_log_says_what_was_written_or_nothing(
    unit: tuple[str, float, str],
    frame: tuple[str, bool],
    rate: int,
    border: str,
    extras: list[str],
    is_shuffled: bool,
    dice: object,
) -> None:
    name, factor, scope = unit
    order = list(range(3 + len(extras)))
    if is_shuffled:
        dice.shuffle(order)  # type: ignore[attr-defined]
    reader = GenericLogReader()
    for n in range(1, 8):
        parts = [f"step {n}", f"loss {3 - n / 10:.2f}", f"{rate} {name}", *extras]
        body = border.join(parts[at] for at in order)
        reader.read(LogLine(n, frame[0].format(body=body, s=2 * n)))
    claims = reader.claims()
    assert len(claims) == 1, body
    steps = list(claims[0].steps)
    assert [step.number for step in steps] == list(range(1, 8)), body
    assert all(step.duration_s is None for step in steps), body
    read = {step.tokens_per_s for step in steps}
    assert read == {None} or all(r is not None and math.isclose(r, rate * factor) for r in read), (body, read)
    assert read != {None}, body
    assert claims[0].scope == scope, body
    stamps = [step.stamp_s for step in steps]
    if frame[1]:
        assert [b - a for a, b in itertools.pairwise(stamps) if a is not None and b is not None] == [2.0] * 6
