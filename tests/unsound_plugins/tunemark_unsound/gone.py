"""Needs a module that nobody has."""

import no_such_module_of_anybody

__all__ = ["no_such_module_of_anybody"]
