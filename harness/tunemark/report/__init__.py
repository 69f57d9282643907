"""Presentation of results: format-independent report tables, the files of a report, and terminal output."""

from tunemark.report.data_frame import join_run_tables as join_run_tables
from tunemark.report.data_frame import make_data_frame as make_data_frame
from tunemark.report.files import write_report as write_report
from tunemark.report.report import Column as Column
from tunemark.report.report import Report as Report
from tunemark.report.report import ReportTable as ReportTable
from tunemark.report.run_summary import claim_lines as claim_lines
from tunemark.report.run_summary import claims_table as claims_table
from tunemark.report.run_summary import runs_table as runs_table
from tunemark.report.run_summary import verdict_line as verdict_line
from tunemark.report.run_summary import verdict_lines as verdict_lines
from tunemark.report.sections import make_report as make_report
