"""Writes a plugin author's first distribution from the templates in this package."""

from tunemark.scaffold.files import KINDS as KINDS
from tunemark.scaffold.files import make_names as make_names
from tunemark.scaffold.files import write_files as write_files
