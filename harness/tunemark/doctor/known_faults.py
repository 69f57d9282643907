"""Versions whose known faults change what a measurement says, each with the report that describes it.

A fault is listed where it slows training down, changes what is computed, or lets a job hang. Looked up in November
2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tunemark.doctor.diagnosis import Level
from tunemark.version_order import is_older


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownFault:
    """A fault of the versions from `since` to before `fixed`; "" is the first and the latest. applies: whether
    it shows, by all versions and whether torch sees a GPU. words: what happens. remedy: what helps."""

    package: str
    words: str
    remedy: str
    source: str
    level: Level
    since: str = ""
    fixed: str = ""
    applies: Callable[[Mapping[str, str | None], bool], bool] = lambda versions, has_gpu: True

    def is_in(self, version: str) -> bool:
        """Whether a version has the fault."""
        is_new_enough = not self.since or not is_older(version, self.since)
        return is_new_enough and (not self.fixed or is_older(version, self.fixed))


def _has_numpy_2(versions: Mapping[str, str | None], has_gpu: bool) -> bool:
    numpy = versions.get("numpy")
    return numpy is not None and not is_older(numpy, "2")


KNOWN_FAULTS = (
    KnownFault(
        package="torch",
        fixed="2.3",
        applies=_has_numpy_2,
        words="this torch was built for NumPy 1 and cannot use NumPy 2: tensors cannot be made of its arrays",
        remedy="python -m pip install 'numpy<2'",
        source="https://github.com/TorchIO-project/torchio/pull/1183",
        level="severe",
    ),
    KnownFault(
        package="torch",
        since="2.14",
        fixed="2.14.1",
        applies=lambda versions, has_gpu: not has_gpu,
        words="products in float16 on a CPU use oneDNN's reference loops and are hundreds of times slower",
        remedy="python -m pip install torch==2.13.0, or another precision than float16",
        source="https://github.com/pytorch/pytorch/issues/193951",
        level="minor",
    ),
    KnownFault(
        package="torch",
        since="2.11",
        applies=lambda versions, has_gpu: has_gpu,
        words="on H100 and H200, attention with an explicit mask through cuDNN can return NaN gradients where the "
        "sequence modulo 128 is 64",
        remedy="choose a sequence that is a multiple of 128, or switch off cuDNN's attention "
        "(torch.backends.cuda.enable_cudnn_sdp(False))",
        source="https://github.com/pytorch/pytorch/issues/196678",
        level="minor",
    ),
    KnownFault(
        package="transformers",
        fixed="4.46",
        words="its Trainer normalizes the loss of gradient accumulation by micro-batches, not by tokens: its losses "
        "are not those of a whole batch",
        remedy="python -m pip install 'transformers>=4.46', before its Trainer is compared with others",
        source="https://github.com/huggingface/transformers/pull/34191",
        level="minor",
    ),
    KnownFault(
        package="linux",
        fixed="5.5",
        words="processes that share memory through accelerate were seen to hang",
        remedy="a newer kernel, or --strategy none",
        source="https://github.com/huggingface/accelerate/issues/1929",
        level="minor",
    ),
)


def find_known_faults(versions: Mapping[str, str | None], *, has_gpu: bool) -> list[KnownFault]:
    """The faults that apply. versions: by package, with `linux` for the kernel; None is unknown and has none."""
    return [
        fault
        for fault in KNOWN_FAULTS
        if (version := versions.get(fault.package)) is not None
        and fault.is_in(version)
        and fault.applies(versions, has_gpu)
    ]
