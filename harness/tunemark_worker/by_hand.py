"""The same training as an attempt's, in a plain torch loop: what the harness is measured against.

Batches are made beforehand, and nothing is counted, recorded or read from a clock within the timed part. A program for
the interpreter that trains, started as a file: by_hand.py PLAN WARMUP STEPS prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Dict


# Long: one loop from top to bottom, as anybody would write it, is what it is for.
def train_by_hand(plan: Dict[str, Any], warmup: int, steps: int) -> Dict[str, float]:
    """Train as `plan` (an attempt's plan.json) says; returns the content tokens and seconds of the timed steps."""
    # Heavy, and only needed in the new process that trains.
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from tunemark_worker import batches, row_packing
    from tunemark_worker.contract import TokenFile

    cores = plan["device_options"].get("cores")
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores[0])
    torch.set_num_threads(plan["threads"])
    xla: Any = importlib.import_module("torch_xla") if plan["device"] == "xla" else None
    device = torch.device(plan["device"]) if xla is None else xla.device()

    precision, sequence, is_packed = plan["precision"], plan["sequence"], plan["batching"] == "pack"
    stored = torch.bfloat16 if precision == "bf16" else torch.float32
    computed = torch.float32 if precision == "fp32" else torch.bfloat16
    architecture = {key: value for key, value in plan["architecture"].items() if key != "model_type"}
    torch.manual_seed(plan["seed"])
    torch.set_default_dtype(stored)
    with device:
        settings: Dict[str, Any] = {**architecture, "attn_implementation": "sdpa", "use_cache": False}
        model = MistralForCausalLM(MistralConfig(**settings))
    torch.set_default_dtype(torch.float32)
    model.train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=plan["learning_rate"])

    tokens = batches.MappedTokens(TokenFile(**plan["token_file"]))
    how = (sequence, plan["batching"], plan["seed"], None, plan["global_batch"])
    rows = (row for _, row in row_packing.make_batch_rows(tokens.lengths(), *how))
    data = []
    content = []
    for _ in range(warmup + steps):
        taken = list(itertools.islice(rows, plan["micro_batch"]))
        width = row_packing.micro_batch_width(taken, sequence, plan["batching"])
        batch = tokens.batch(taken, width, is_packed)
        # Position i predicts the label of position i + 1; the last position predicts nothing.
        following = torch.nn.functional.pad(batch.labels[:, 1:], (0, 1), value=-100)
        data.append((batch.input_ids, following, batch.document_ids, batch.positions))
        content.append(int((batch.document_ids >= 0).sum()))

    at = torch.arange(sequence, device=device)
    distance = at[:, None] - at[None, :]
    # Mistral's window holds the query itself and the `sliding_window` - 1 positions before it.
    near = (distance >= 0) & (distance < (architecture.get("sliding_window") or sequence))

    def masked(document_ids: torch.Tensor) -> torch.Tensor:
        """Additive mask [micro_batch, 1, sequence, sequence]: 0 where a query may see a key, else the lowest number."""
        seen = (document_ids[:, :, None] == document_ids[:, None, :]) & near
        mask = torch.zeros(seen.shape, dtype=computed, device=device)
        return mask.masked_fill_(~seen, torch.finfo(computed).min)[:, None]

    def instant_s() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if xla is not None:
            xla.sync()
            xla.core.xla_model.wait_device_ops()
        return time.monotonic()

    losses = []
    began_s = instant_s()
    for step, tensors in enumerate(data):
        if step == warmup:
            began_s = instant_s()
        input_ids, following, document_ids, positions = (t.to(device, non_blocking=True) for t in tensors)
        packing = {"attention_mask": masked(document_ids), "position_ids": positions} if is_packed else {}
        autocast = torch.autocast(device.type, dtype=torch.bfloat16)
        with autocast if precision == "bf16-autocast" else contextlib.nullcontext():
            logits = model(input_ids=input_ids, use_cache=False, **packing).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), following.flatten(), ignore_index=-100)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        torch.nn.utils.clip_grad_norm_(parameters, plan["clip_norm"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if xla is not None:
            xla.sync()
    seconds = instant_s() - began_s
    ends = {"loss_first": losses[0].item(), "loss_last": losses[-1].item()}
    return {"content": sum(content[warmup:]), "seconds": seconds, **ends}


if __name__ == "__main__":
    print(json.dumps(train_by_hand(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2]), int(sys.argv[3]))))
