"""Datasets in the worker's format: one flat file of token ids, prepared once and cached."""

from tunemark.data.data_summary import DataSummary as DataSummary
from tunemark.data.data_summary import RowSettings as RowSettings
from tunemark.data.data_summary import count_epoch_tokens as count_epoch_tokens
from tunemark.data.data_summary import list_widths as list_widths
from tunemark.data.data_summary import make_point_rows as make_point_rows
from tunemark.data.data_summary import make_row_settings as make_row_settings
from tunemark.data.data_summary import measure_widths as measure_widths
from tunemark.data.data_summary import summarize_data as summarize_data
from tunemark.data.pretrained_weights import download_pretrained as download_pretrained
from tunemark.data.token_file import PreparedData as PreparedData
from tunemark.data.token_file import load_tokenizer as load_tokenizer
from tunemark.data.token_file import prepare_data as prepare_data
from tunemark.data.token_file import read_token_file as read_token_file
