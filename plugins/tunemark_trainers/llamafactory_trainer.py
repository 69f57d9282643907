"""In the worker: the trainer of LLaMA-Factory's stage `sft`, with its own collator.

Packed rows have the four-dimensional mask of its `neat_packing`. The rows are the token file's, so that it trains on
the same; its templates and its reading of data sets have no part in it.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any, Dict, Mapping, Optional

import torch

try:
    import torchaudio  # noqa: F401  # what follows imports it
except (ImportError, OSError):
    # It imports torchaudio for sounds, whose published build cannot be loaded without CUDA. Rows of text need none.
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)

from llamafactory.data import SFTDataCollatorWith4DAttentionMask
from llamafactory.data.template import TEMPLATES
from llamafactory.extras.env import VERSION
from llamafactory.hparams import FinetuningArguments, TrainingArguments
from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer

from tunemark_trainers.row_lists import RowLists, make_tokenizer, mask_row, number_documents
from tunemark_trainers.transformers_trainer import find_own_rate, make_arguments, make_trainer
from tunemark_worker.contract import Assignment
from tunemark_worker.row_packing import WIDTH_MULTIPLE
from tunemark_worker.trainer_session import TrainerSession


class LlamaFactoryTrainer:
    """`CustomSeq2SeqTrainer` on the run's model."""

    def __init__(self, assignment: Assignment) -> None:
        self._a = assignment
        self._own: Optional[Dict[str, Any]] = None

    def facts(self) -> Mapping[str, Any]:
        return {"version": VERSION, "differs": {}}

    def train(self, session: TrainerSession) -> None:
        a = self._a
        session.watch(session.module)
        tokenizer = make_tokenizer(a.token_file.pad_id)
        is_packed = a.batching == "pack"
        collate = SFTDataCollatorWith4DAttentionMask(
            template=TEMPLATES["empty"],
            model=session.module,
            tokenizer=tokenizer,
            pad_to_multiple_of=WIDTH_MULTIPLE if a.batching == "bucket" else a.sequence,
            block_diag_attn=is_packed,
            neat_packing=is_packed,
            attn_implementation="sdpa",
            compute_dtype=torch.bfloat16 if a.precision == "bf16" else torch.float32,
        )
        trainer = make_trainer(
            CustomSeq2SeqTrainer,
            session,
            make_arguments(session, TrainingArguments),
            train_dataset=RowLists(session, number_documents if is_packed else mask_row),
            data_collator=collate,
            tokenizer=tokenizer,
            finetuning_args=FinetuningArguments(stage="sft", finetuning_type="full"),
            processor=None,
        )
        trainer.train()
        self._own = find_own_rate(trainer.state.log_history)

    def own_rate(self) -> Optional[Mapping[str, Any]]:
        return self._own
