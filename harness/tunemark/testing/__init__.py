"""The kit: what is promised of a plugin, held to what it does. `tunemark check` prints it, pytest runs it as tests.

Facts are looked at in the parent, a plugin's import in a process of its own, a model's arithmetic in a worker without
an accelerator, devices and strategies in real, short runs. Each check says why it passed, failed or could not be done.
"""

from tunemark.testing.check import Check as Check
from tunemark.testing.check import Outcome as Outcome
from tunemark.testing.kit import NAMES as NAMES
from tunemark.testing.kit import Kit as Kit
