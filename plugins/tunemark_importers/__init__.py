"""Readers of other tools' training logs and result files, each recognised by the content alone."""
