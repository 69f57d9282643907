"""Readers of other tools' training logs and result files, recognised by content."""
