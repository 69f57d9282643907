"""A real lazy device whose driver does not wait."""
