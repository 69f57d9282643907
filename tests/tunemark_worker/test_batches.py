"""Batches cut from a token file written by hand."""

import json
import struct

import pytest
import torch

from tunemark_worker.batches import MappedTokens, count_targets, count_tokens
from tunemark_worker.contract import HEADER_BYTES, TokenFile, token_file_offsets
from tunemark_worker.row_packing import DocumentPrefix

DOCUMENTS = [[11, 12, 13], [21, 22], [31, 32, 33, 34]]
TRAINED = [1, 1, 1, 0, 1, 1, 0, 1, 1]


@pytest.fixture
def file(tmp_path):
    layout = token_file_offsets(3, 9)
    content = bytearray(layout.end)
    content[:HEADER_BYTES] = json.dumps({"schema": 1, "documents": 3, "tokens": 9}).encode().ljust(HEADER_BYTES)
    struct.pack_into("<9i", content, layout.ids, *(token for document in DOCUMENTS for token in document))
    struct.pack_into("<9B", content, layout.trained, *TRAINED)
    struct.pack_into("<4q", content, layout.offsets, 0, 3, 5, 9)
    (tmp_path / "tokens").write_bytes(content)
    return TokenFile(path=str(tmp_path / "tokens"), sha256="", documents=3, tokens=9, pad_id=0)


def test_a_packed_row(file):
    tokens = MappedTokens(file)
    assert tokens.lengths() == [3, 2, 4]
    batch = tokens.batch([[DocumentPrefix(2, 4), DocumentPrefix(1, 2)], [DocumentPrefix(0, 3)]], 8, packed=True)
    assert batch.input_ids.tolist() == [[31, 32, 33, 34, 21, 22, 0, 0], [11, 12, 13, 0, 0, 0, 0, 0]]
    # 31, 21 and 11 have no predecessor, 32 is not trained on.
    assert batch.labels.tolist() == [
        [-100, -100, 33, 34, -100, 22, -100, -100],
        [-100, 12, 13, -100, -100, -100, -100, -100],
    ]
    assert batch.document_ids.tolist() == [[0, 0, 0, 0, 1, 1, -1, -1], [0, 0, 0, -1, -1, -1, -1, -1]]
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 0, 1, 0, 0]
    assert all(t.dtype == torch.int64 for t in batch[:4])
    assert count_tokens([batch, batch]) == (32, 18, 10)


def test_every_trained_token_that_has_a_predecessor_is_a_target(file):
    tokens = MappedTokens(file)
    flagged = sum(TRAINED) - sum(TRAINED[i] for i in (0, 3, 5))
    padded = tokens.batch([[DocumentPrefix(0, 3)], [DocumentPrefix(1, 2)], [DocumentPrefix(2, 4)]], 4, packed=False)
    packed = tokens.batch([[DocumentPrefix(2, 4), DocumentPrefix(0, 3), DocumentPrefix(1, 2)]], 9, packed=True)
    assert count_targets(padded) == count_targets(packed) == flagged == 5


def test_a_cut_document_is_counted_as_cut(file):
    assert count_tokens([MappedTokens(file).batch([[DocumentPrefix(2, 2)]], 2, packed=False)]) == (2, 2, 0)


def test_another_file_than_announced_is_refused(file):
    with pytest.raises(ValueError, match="bytes instead of"):
        MappedTokens(TokenFile(path=file.path, sha256="", documents=3, tokens=8, pad_id=0))
