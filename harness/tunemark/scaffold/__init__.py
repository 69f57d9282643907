"""A stranger's first distribution, written from templates that lie beside this file and travel with the package."""

from tunemark.scaffold.write import KINDS as KINDS
from tunemark.scaffold.write import Names as Names
from tunemark.scaffold.write import names as names
from tunemark.scaffold.write import write as write
