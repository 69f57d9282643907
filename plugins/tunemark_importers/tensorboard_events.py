"""Reads TensorBoard's event files, with the package tensorboard.

Source: github.com/tensorflow/tensorboard, `tensorboard/compat/proto/event.proto` and
`tensorboard/backend/event_processing/event_file_loader.py`. A file is a row of records: length, check sum, an Event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunemark.errors import BadData
from tunemark.plugin.claims import Claim
from tunemark.temporary import temporary_folder
from tunemark_importers.metric_rows import claims_of_rows, group_by_step

MEANING = (
    "scalars as the program recorded them, by their tags; what they count is unknown where the tag does not say it"
)
# The first record of every event file: an Event with a time and this version.
_VERSION = b"brain.Event:"


def is_document(head: bytes) -> bool:
    """Whether a file begins like an event file."""
    return _VERSION in head[:64]


def document(id: str, source: str, content: bytes) -> Sequence[Claim]:
    """The claim of a run. Raises `BadData` without the package tensorboard, or if no scalar can be read."""
    found = list(_scalars(source, content))
    claims = claims_of_rows(group_by_step(found), id=id, source=source, tool="tensorboard", meaning=MEANING)
    if not claims:
        tags = sorted({tag for _, _, _, tag, _ in found})
        raise BadData(
            what=f"no figure of a training is in the TensorBoard event file {source}",
            why=f"its scalars are {', '.join(tags[:8])}"
            if tags
            else "no scalar in it can be read: it is cut off or damaged",
            next="give a run that records tokens or steps per second, or the console log",
        )
    return claims


def _scalars(source: str, content: bytes) -> Iterator[tuple[int, float, float, str, str]]:
    """(number of the record, step, wall time, tag, value as printed) of each scalar, up to a damaged record."""
    try:
        from tensorboard.backend.event_processing import event_file_loader
        from tensorboard.util import tensor_util
    except ImportError as error:
        raise BadData(
            what=f"{source} is a TensorBoard event file",
            why="the package tensorboard, which reads it, is not installed",
            next="pip install 'tunemark[tensorboard]', or give the CSV that TensorBoard downloads for one scalar",
        ) from error
    with temporary_folder("events") as folder:
        path = folder / "events.out.tfevents.0"
        path.write_bytes(content)
        try:
            for number, event in enumerate(event_file_loader.EventFileLoader(str(path)).Load(), 1):
                for value in event.summary.value:
                    kind = value.WhichOneof("value")
                    if kind == "simple_value":
                        yield number, float(event.step), event.wall_time, value.tag, repr(float(value.simple_value))
                    elif kind == "tensor":
                        array = tensor_util.make_ndarray(value.tensor)
                        if array.size == 1 and array.dtype.kind in "fiu":
                            yield number, float(event.step), event.wall_time, value.tag, repr(float(array.item()))
        except Exception:
            # Its own errors, of whichever backend it has: what was read until here stays.
            return
