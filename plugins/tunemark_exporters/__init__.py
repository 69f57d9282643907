"""Finished runs for the tools in which people keep experiments and ask questions of them."""
