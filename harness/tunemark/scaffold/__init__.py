"""Writes a plugin author's first distribution from the templates in this package."""

from tunemark.scaffold.write import KINDS as KINDS
from tunemark.scaffold.write import Names as Names
from tunemark.scaffold.write import names as names
from tunemark.scaffold.write import write as write
