"""Writes a plugin author's first distribution from the templates in this package."""

from tunemark.scaffold.ci_files import write_ci_files as write_ci_files
from tunemark.scaffold.files import KINDS as KINDS
from tunemark.scaffold.files import make_names as make_names
from tunemark.scaffold.files import write_files as write_files
