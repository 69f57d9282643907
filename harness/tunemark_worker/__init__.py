"""The timed process. Never imports `tunemark`; Python 3.8 syntax; needs only torch and the standard library."""
