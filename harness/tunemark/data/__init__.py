"""Datasets as the worker reads them: one flat file of ids, prepared once and kept."""

from tunemark.data.tokens import Prepared as Prepared
from tunemark.data.tokens import Tokens as Tokens
from tunemark.data.tokens import prepare as prepare
from tunemark.data.tokens import read_tokens as read_tokens
from tunemark.data.tokens import tokenizer_of as tokenizer_of
