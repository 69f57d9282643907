"""The timed process. Imports nothing of the parent; Python 3.8 syntax; needs the standard library and torch alone."""
