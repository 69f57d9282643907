"""Imports a module that does not exist."""

import no_such_module_of_anybody

__all__ = ["no_such_module_of_anybody"]
