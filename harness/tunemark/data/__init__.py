"""Datasets in the worker's format: one flat file of token ids, prepared once and cached."""

from tunemark.data.published import published as published
from tunemark.data.tokens import Prepared as Prepared
from tunemark.data.tokens import Tokens as Tokens
from tunemark.data.tokens import open_tokenizer as open_tokenizer
from tunemark.data.tokens import prepare as prepare
from tunemark.data.tokens import read_tokens as read_tokens
