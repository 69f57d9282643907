"""The timed process: imports nothing of the parent, and needs the standard library and torch."""

from tunemark_worker.script_steps import lap as lap
