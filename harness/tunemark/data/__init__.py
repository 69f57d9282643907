"""Datasets in the worker's format: one flat file of token ids, prepared once and cached."""

from tunemark.data.pretrained_weights import download_pretrained as download_pretrained
from tunemark.data.token_file import PreparedData as PreparedData
from tunemark.data.token_file import load_tokenizer as load_tokenizer
from tunemark.data.token_file import prepare_data as prepare_data
from tunemark.data.token_file import read_token_file as read_token_file
