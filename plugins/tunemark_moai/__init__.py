"""Moreh's MoAI platform: the device, its strategies, and parsers of what its tools print."""
