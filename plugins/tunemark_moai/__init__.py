"""Moreh's MoAI platform: what its tools print, read from text."""
