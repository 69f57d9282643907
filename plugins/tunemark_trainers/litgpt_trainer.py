"""In the worker: LitGPT's loop for full fine-tuning, `litgpt.finetune.full.fit`, on its own `GPT`.

The loop has no gradient clipping, and `GPT` takes neither a mask nor positions for documents of one row.
"""

from __future__ import annotations

import json
import os
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional

import lightning
import torch
from litgpt.args import EvalArgs, TrainArgs
from litgpt.config import Config
from litgpt.finetune import full
from litgpt.model import GPT
from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
from litgpt.utils import create_finetuning_performance_report

from tunemark_trainers.lightning_trainer import PRECISIONS, find_weighting
from tunemark_worker.contract import Assignment
from tunemark_worker.optimizer import make_optimizer
from tunemark_worker.precision import parameter_dtype
from tunemark_worker.trainer_session import TrainerSession

# More steps than any run takes: what its count of steps is set to, so that the loop ends.
ENDLESS_STEPS = 10**12


class LitgptTrainer:
    """`fit` on a `GPT` with the weights of the run's model."""

    def __init__(self, assignment: Assignment) -> None:
        self._a = assignment
        self._own: Optional[Dict[str, Any]] = None

    def facts(self) -> Mapping[str, Any]:
        differs = dict(find_weighting(self._a))
        if self._a.clip_norm > 0:
            differs["clip_norm"] = "its loop clips no gradients; --clip-norm 0 asks for the same of all"
        if self._a.batching == "pack":
            differs["attention"] = "documents of a packed row attend to those before them: its GPT takes no mask"
        return {"version": metadata.version("litgpt"), "differs": differs}

    def train(self, session: TrainerSession) -> None:
        a = self._a
        module = convert_module(session)
        session.watch(module)
        session.module = torch.nn.Module()
        precision: Any = PRECISIONS[a.precision]
        fabric = ObservedFabric(
            accelerator="cpu" if session.place.device == "cpu" else "gpu", devices=1, precision=precision
        )
        optimizer = make_optimizer(a.optimizer, [p for p in module.parameters() if p.requires_grad], a.learning_rate)
        state: Dict[str, Any] = {"iter_num": 0, "step_count": 0}
        state["model"] = fabric.setup(module)
        state["optimizer"] = fabric.setup_optimizers(optimizer)
        state["scheduler"] = StepScheduler(session, optimizer, state, fabric)
        folder = write_tokenizer(Path(os.getcwd()) / "trainer")
        began_s = time.perf_counter()
        counts = full.fit(
            fabric=fabric,
            state=state,
            train_dataloader=LitgptBatches(session),
            val_dataloader=ShortValidation(a.sequence),
            devices=1,
            resume=False,
            checkpoint_dir=folder,
            out_dir=folder,
            train=TrainArgs(
                save_interval=None,
                log_interval=1,
                global_batch_size=a.global_batch,
                micro_batch_size=a.micro_batch,
                lr_warmup_steps=0,
                epochs=1,
                max_steps=ENDLESS_STEPS,
                max_seq_length=a.sequence,
            ),
            eval=EvalArgs(interval=2 * ENDLESS_STEPS, max_iters=1, initial_validation=False, final_validation=False),
            data=None,
        )
        report = create_finetuning_performance_report(time.perf_counter() - began_s, counts, fabric.device.type)
        fabric.print(report)
        self._own = find_own_rate(report)

    def own_rate(self) -> Optional[Mapping[str, Any]]:
        return self._own


class ObservedFabric(lightning.Fabric):  # type: ignore[misc]  # published for another interpreter
    """Fabric, which keeps the losses of a step's micro-batches."""

    losses: List[torch.Tensor]

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.losses = []

    def backward(self, tensor: torch.Tensor, *args: Any, **named: Any) -> None:
        self.losses.append(tensor.detach())
        super().backward(tensor, *args, **named)


class StepScheduler:
    """The run's schedule. The loop steps it once after each update, and so each step ends here."""

    def __init__(self, session: TrainerSession, optimizer: Any, state: Dict[str, Any], fabric: ObservedFabric) -> None:
        self._session, self._optimizer, self._state, self._fabric = session, optimizer, state, fabric
        self._step = 0

    def step(self) -> None:
        losses, self._fabric.losses = self._fabric.losses, []
        rate = self._session.learning_rate(self._step)
        self._step += 1
        following = self._session.learning_rate(self._step)
        for group in self._optimizer.param_groups:
            group["lr"] = following
        if not self._session.step_ended(torch.stack(losses).sum(), None, rate):
            self._state["step_count"] = ENDLESS_STEPS

    def get_last_lr(self) -> List[float]:
        return [group["lr"] for group in self._optimizer.param_groups]


class LitgptBatches:
    """The session's micro-batches in LitGPT's form. dataset: looked at for its longest row."""

    def __init__(self, session: TrainerSession) -> None:
        self._session = session
        self.dataset = [{"input_ids": torch.zeros(session.assignment.sequence, dtype=torch.int64)}]

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        for batch in self._session.micro_batches():
            content = (batch.document_ids >= 0).sum(dim=1, keepdim=True)
            counts = {"raw": content, "raw_plus_prompt_template": content}
            device = self._session.place.device
            ids, labels = batch.input_ids.to(device), batch.labels.to(device)
            yield {"input_ids": ids, "labels": labels, "token_counts": counts}


class ShortValidation:
    """One row for the validation with which the loop begins, whatever it is told."""

    def __init__(self, sequence: int) -> None:
        ids = torch.zeros(2, dtype=torch.int64)
        self.dataset = [{"input_ids": ids, "labels": ids}]

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        yield {name: tensor[None] for name, tensor in self.dataset[0].items()}


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer for a loop that reads one from a file and does not use it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


def convert_module(session: TrainerSession) -> Any:
    """LitGPT's module with the weights of the run's model."""
    a, d = session.assignment, session.assignment.architecture
    config = Config(
        name="run",
        block_size=max(a.sequence, 2),
        n_layer=d["num_hidden_layers"],
        n_embd=d["hidden_size"],
        vocab_size=d["vocab_size"],
        padded_vocab_size=d["vocab_size"],
        norm_class_name="RMSNorm",
        norm_eps=d["rms_norm_eps"],
        parallel_residual=False,
        n_head=d["num_attention_heads"],
        head_size=d["head_dim"],
        n_query_groups=d["num_key_value_heads"],
        sliding_window_size=d.get("sliding_window"),
        rope_base=d["rope_theta"],
        rotary_percentage=1.0,
        intermediate_size=d["intermediate_size"],
        bias=False,
        mlp_class_name="LLaMAMLP",
    )
    module = GPT(config).to(session.place.device, parameter_dtype(a.precision))
    weights: Dict[str, torch.Tensor] = {}
    copy_weights_hf_llama(config, {}, weights, session.module.state_dict())
    module.load_state_dict(weights)
    return module


def find_own_rate(report: str) -> Optional[Dict[str, Any]]:
    """The rate of LitGPT's report at the end."""
    for line in report.splitlines():
        if "Tok/sec" in line:
            counts = "all ids of the batches, padding included, over all of `fit`: its first validation and warm-up too"
            return {"tokens_per_s": float(line.split(":")[1].split()[0]), "printed": line.strip(), "counts": counts}
    return None
