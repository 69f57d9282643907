"""The readers of all described formats: the attribute `nemo_2` makes readers of the format nemo-2.

An `Importer` names its reader by "module:attribute"; these are made when they are asked for, because a description is
all that there is to them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from tunemark_importers.described_log import DescribedLogReader
from tunemark_importers.framework_formats import FORMATS, attribute_of


def __getattr__(name: str) -> Callable[[], DescribedLogReader]:
    for format in FORMATS:
        if attribute_of(format.name) == name:
            return functools.partial(DescribedLogReader, format)
    raise AttributeError(name)
