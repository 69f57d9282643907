"""In the worker: the training loop of torchtune's recipe for full fine-tuning on one device, on torchtune's modules.

The recipe's own set-up asks for files of weights and of data and for a GPU; here its parts are set one by one, and then
its `train` runs as it is.
"""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional

import torch
import torchtune
from torchtune import __version__
from torchtune.data import padded_collate_packed
from torchtune.models.convert_weights import hf_to_tune
from torchtune.models.mistral._component_builders import mistral
from torchtune.modules.attention_utils import create_block_causal_mask
from torchtune.modules.loss import CEWithChunkedOutputLoss
from torchtune.training import DummyProfiler

from tunemark_worker.batches import Batch
from tunemark_worker.contract import IGNORED_LABEL, Assignment
from tunemark_worker.optimizer import make_optimizer
from tunemark_worker.precision import autocast, parameter_dtype
from tunemark_worker.trainer_session import TrainerSession


class TorchtuneTrainer:
    """`FullFinetuneRecipeSingleDevice.train`. Its log has tokens per second of each step."""

    def __init__(self, assignment: Assignment) -> None:
        self._a = assignment
        self._log: List[Mapping[str, Any]] = []

    def facts(self) -> Mapping[str, Any]:
        return {"version": __version__ or "0.6.1", "differs": {}}

    def train(self, session: TrainerSession) -> None:
        a = self._a
        module = convert_module(session)
        session.watch(module)
        session.module = torch.nn.Module()
        recipe: Any = object.__new__(load_recipe())
        trained = [p for p in module.parameters() if p.requires_grad]
        optimizer = make_optimizer(a.optimizer, trained, a.learning_rate)
        loss = CEWithChunkedOutputLoss(ignore_index=IGNORED_LABEL)
        module.set_num_output_chunks(loss.num_output_chunks)
        recipe.__dict__.update(
            _device=torch.device(session.place.device),
            _compile=False,
            _optimizer_in_bwd=False,
            _optimizer=optimizer,
            _lr_scheduler=torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: session.learning_rate(step) / a.learning_rate
            ),
            _profiler=DummyProfiler(),
            profiler_profile_memory=False,
            epochs_run=0,
            total_epochs=1,
            max_steps_per_epoch=None,
            _steps_per_epoch=None,
            global_step=0,
            _gradient_accumulation_steps=a.gradient_accumulation,
            _clip_grad_norm=a.clip_norm if a.clip_norm > 0 else None,
            _log_every_n_steps=1,
            _log_peak_memory_stats=False,
            _metric_logger=StepLogger(session, self._log),
            _model=module,
            _loss_fn=loss,
            activations_handling_ctx=contextlib.nullcontext(),
            ignore_labels_cache=torch.full((a.micro_batch, 1), IGNORED_LABEL, device=session.place.device),
            _dataloader=TorchtuneBatches(session),
            save_checkpoint=lambda epoch: None,
        )
        # The recipe has no autocast of its own.
        with autocast(a.precision, session.place.device):
            recipe.train()

    def own_rate(self) -> Optional[Mapping[str, Any]]:
        if not self._log:
            return None
        rates = [float(each["tokens_per_second_per_gpu"]) for each in self._log]
        # The median of its lines: the first has what is done once.
        rate = sorted(rates)[len(rates) // 2]
        counts = "tokens with a label, of one step, on one device"
        return {"tokens_per_s": rate, "printed": "tokens_per_second_per_gpu: {:.6g}".format(rate), "counts": counts}


def load_recipe() -> Any:
    """The class of the recipe, from its file beside torchtune's package: `tune run` reads it so, too."""
    path = Path(torchtune.__file__).parent.parent / "recipes" / "full_finetune_single_device.py"
    spec = importlib.util.spec_from_file_location("full_finetune_single_device", path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FullFinetuneRecipeSingleDevice


class StepLogger:
    """Takes the recipe's log line of each step, as which the step ends."""

    def __init__(self, session: TrainerSession, log: List[Mapping[str, Any]]) -> None:
        self._session, self._log = session, log

    def log_dict(self, payload: Mapping[str, Any], step: int) -> None:
        self._log.append(payload)
        rate = self._session.learning_rate(step - 1)
        self._session.step_ended(payload["loss"], payload.get("grad_norm"), rate)


class TorchtuneBatches:
    """The session's micro-batches in torchtune's form, until training has to stop. Its own sampler."""

    def __init__(self, session: TrainerSession) -> None:
        self._session = session
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        pass

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        for batch in self._session.micro_batches():
            yield name_tensors(batch)
            if self._session.reason:
                return


def name_tensors(batch: Batch) -> Dict[str, Any]:
    if not batch.packed:
        return {"tokens": batch.input_ids, "labels": batch.labels}
    rows = [
        {"tokens": ids, "labels": labels, "input_pos": positions, "seq_lens": measure_documents(documents)}
        for ids, labels, documents, positions in zip(*batch[:4])
    ]
    if torch.cuda.is_available():
        found: Dict[str, Any] = padded_collate_packed(rows)
        return found
    # Without a GPU torchtune's collator asks for one, to make a mask for flex attention.
    return {
        "tokens": batch.input_ids,
        "labels": batch.labels,
        "input_pos": batch.positions,
        "mask": create_block_causal_mask([row["seq_lens"] for row in rows]),
    }


def measure_documents(documents: torch.Tensor) -> torch.Tensor:
    """The lengths of a row's documents, and of its padding as one more."""
    lengths: torch.Tensor = torch.unique_consecutive(documents, return_counts=True)[1]
    return lengths


def convert_module(session: TrainerSession) -> Any:
    """torchtune's module with the weights of the run's model."""
    a, d = session.assignment, session.assignment.architecture
    with torch.device(session.place.device):
        module = mistral(
            vocab_size=d["vocab_size"],
            num_layers=d["num_hidden_layers"],
            num_heads=d["num_attention_heads"],
            num_kv_heads=d["num_key_value_heads"],
            embed_dim=d["hidden_size"],
            intermediate_dim=d["intermediate_size"],
            max_seq_len=max(a.sequence, 2),
            norm_eps=d["rms_norm_eps"],
            rope_base=d["rope_theta"],
        )
    weights = hf_to_tune(
        session.module.state_dict(),
        num_heads=d["num_attention_heads"],
        num_kv_heads=d["num_key_value_heads"],
        dim=d["hidden_size"],
        head_dim=d["head_dim"],
    )
    module.load_state_dict(weights)
    return module.to(parameter_dtype(a.precision))
