"""Presentation of results: format-independent report tables, the files of a report, and terminal output."""

from tunemark.report.arrange import Unread as Unread
from tunemark.report.arrange import arrange as arrange
from tunemark.report.frame import flat as flat
from tunemark.report.frame import frame as frame
from tunemark.report.report import Column as Column
from tunemark.report.report import Report as Report
from tunemark.report.report import Table as Table
from tunemark.report.text import claim_lines as claim_lines
from tunemark.report.text import claims_table as claims_table
from tunemark.report.text import exit_code as exit_code
from tunemark.report.text import markdown_table as markdown_table
from tunemark.report.text import verdict_line as verdict_line
from tunemark.report.text import verdict_lines as verdict_lines
from tunemark.report.write import read as read
from tunemark.report.write import write as write
