"""Is a script of one's own measured as it runs inside tunemark? Two scripts against the same loops of tunemark's.

    python benchmarks/scripts.py            # mistral-tiny on one core of this machine, the other for what else runs

A plain torch loop with three lines of `lap` is held to `--trainer tunemark`, and a script that knows nothing of
tunemark and trains by transformers' `Trainer` to `--trainer hf`. All four train as many slots a step, in fp32, with the
same allocator, on one core: the other is left to the system and to tunemark's parent process. Many short attempts, not
few long ones, because processes differ by more than their steps do: as many whole rounds as fit into --minutes, judged
once, at the end. Every other round goes backwards, so that a drift of the machine cancels out. Compared are slots per
median step, which a pause of the machine does not move; ratios of the whole timed part are printed beside. Bar: the
interval of each ratio of medians lies within 1 % of 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from attempt import attempt
from overhead import median, verdict_within

WITHIN = 0.01
# What both scripts begin with: the model and rows without padding.
_HEAD = """import torch
from transformers import MistralConfig, MistralForCausalLM

torch.manual_seed(0)
model = MistralForCausalLM(MistralConfig(
    vocab_size=32000, hidden_size=256, intermediate_size=896, num_hidden_layers=4, num_attention_heads=8,
    num_key_value_heads=2, head_dim=32, sliding_window=4096, use_cache=False,
))
rows = torch.randint(3, 32000, ({rows}, {sequence}))
"""
_LOOP = """
from tunemark_worker import lap

model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
lap(model)
for step in range(100_000):
    at = step * {micro_batch} % {rows}
    batch = rows[at : at + {micro_batch}]
    loss = model(input_ids=batch, attention_mask=torch.ones_like(batch), labels=batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    lap(model, loss)
"""
_TRAINER = """
from transformers import Trainer, TrainingArguments

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return len(rows)

    def __getitem__(self, at):
        return {{"input_ids": rows[at], "attention_mask": torch.ones_like(rows[at]), "labels": rows[at]}}

arguments = TrainingArguments(
    output_dir={folder!r}, per_device_train_batch_size={micro_batch}, max_steps=100_000, learning_rate=1e-4,
    lr_scheduler_type="constant", report_to=[], save_strategy="no", use_cpu=True, dataloader_pin_memory=False,
)
Trainer(model=model, args=arguments, train_dataset=Rows()).train()
"""


def main() -> int:
    """Exit code 0: both intervals lie within the bar. 1: one lies outside. 3: one holds a bound."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="tunemark-scripts-") as folder:
        return _compare(options, Path(folder))


def _compare(options: argparse.Namespace, folder: Path) -> int:
    # Documents of `synthetic` are longer than such a sequence, nearly all: rows of it are as wide as the scripts'.
    shared = ["--model", "mistral-tiny", "--dataset", "synthetic", "--sequence", str(options.sequence)]
    shared += ["--micro-batch", str(options.micro_batch), "--precision", "fp32", "--allocator", "tuned"]
    shared += ["--device", "cpu:1"]
    facts = {"sequence": options.sequence, "micro_batch": options.micro_batch, "folder": str(folder)}
    scripts = {}
    for name, text in (("loop", _LOOP), ("trainer", _TRAINER)):
        scripts[name] = folder / f"{name}.py"
        scripts[name].write_text((_HEAD + text).format(rows=32 * options.micro_batch, **facts))
    ways = {
        "a loop with lap": ["--trainer", f"script:path={scripts['loop']}"],
        "the same inside tunemark": ["--trainer", "tunemark", "--batching", "pad"],
        "a script with Trainer": ["--trainer", f"script:path={scripts['trainer']}"],
        "the same inside tunemark, by hf": ["--trainer", "hf", "--batching", "pad"],
    }
    rates: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    began_s, number, round_s = time.monotonic(), 0, 0.0
    while number < options.rounds or time.monotonic() - began_s + round_s < 60 * options.minutes:
        round_began_s, store = time.monotonic(), folder / f"{number}"
        for way in list(ways)[:: -1 if number % 2 else 1]:
            result = attempt([*shared, *ways[way]], warmup=options.warmup, steps=options.steps, store=store)
            rates[way].append(_slots_per_s(result))
            words = "{:,.1f} slots/s by the median step, {:,.1f} by the timed part".format(*rates[way][-1])
            print(f"round {number + 1}: {way}: {words}", file=sys.stderr, flush=True)
        number, round_s = number + 1, max(round_s, time.monotonic() - round_began_s)
    names, codes = list(ways), []
    for script, same in zip(names[::2], names[1::2], strict=True):
        found, whole = (
            median([a[which] / b[which] for a, b in zip(rates[script], rates[same], strict=True)]) for which in (0, 1)
        )
        words, code = verdict_within(found, WITHIN)
        codes.append(code)
        print(f"{script} / {same}: {found.value:.4f}, from {found.low:.4f} to {found.high:.4f}. {words}")
        print(f"  by the whole timed part: {whole.value:.4f}, from {whole.low:.4f} to {whole.high:.4f}")
    return max(codes, key=(0, 3, 1).index)


def _slots_per_s(result: dict[str, Any]) -> tuple[float, float]:
    """Slots per second of the median step, and of the whole timed part."""
    tokens = result["tokens"]
    rate: float = result["tokens_per_s"]["value"]
    per_step = tokens["slots"] / result["steps_measured"]
    return per_step / result["step_time_s"]["p50"], rate * tokens["slots"] / tokens["content"]


def _options() -> argparse.Namespace:
    first = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=first, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="rounds of four new processes, taken anyway")
    parser.add_argument("--minutes", type=float, default=9.5, help="more rounds while they fit into so long")
    parser.add_argument("--warmup", type=int, default=8, help="steps before the timed ones")
    parser.add_argument("--steps", type=int, default=40, help="timed steps")
    parser.add_argument("--sequence", type=int, default=64, help="slots in a sequence, tokens")
    parser.add_argument("--micro-batch", type=int, default=4, help="sequences in a step")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
