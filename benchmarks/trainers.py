"""Which trainer is fastest here, at the same rows, weights and optimizer? As installed, and with tunemark's allocator.

    python benchmarks/trainers.py                          # those that are installed; an attempt takes half a minute
    python benchmarks/trainers.py --trainers hf,litgpt     # some of them
    python benchmarks/trainers.py --write                  # also writes reports/trainers/trainers.md

In each round every trainer is run once in each way, and every other round in the opposite order, so that a drift of the
machine cancels out. As installed: with the system's allocator, in padded and in packed rows. With its help: packed rows
and the allocator that tunemark's `tuned` has. Ratios are of content tokens per second, paired by round.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from attempt import attempt
from document import ROOT, machine

from tunemark.markdown import escape, markdown_table
from tunemark.number_format import format_significant
from tunemark.results.ratio import Ratio, RatioTerm, estimate_ratio

_PAGE = ROOT / "reports/trainers/trainers.md"
_HEAD = """# Trainers on two cores

Written by `{command}`. What is compared, and what each trainer does otherwise:
[docs/trainers.md](../../docs/trainers.md). None was run on a GPU.
"""


class Way(NamedTuple):
    """A trainer and its settings. title: the settings in words."""

    trainer: str
    title: str
    words: tuple[str, ...]


class Measured(NamedTuple):
    """A way's attempts in the order of rounds."""

    way: Way
    results: list[dict[str, Any]]

    @property
    def rates(self) -> list[float]:
        return [each["tokens_per_s"]["value"] for each in self.results]


def list_ways(trainers: Sequence[str]) -> list[Way]:
    """The recipes of tunemark's own loop, then every other trainer in each way."""
    ways = [Way("tunemark", f"recipe {recipe}", ("--recipe", recipe)) for recipe in ("tuned", "plain")]
    for name in trainers:
        for batching in ("pad", "pack"):
            words = ("--batching", batching, "--allocator", "system")
            ways.append(Way(name, f"as installed, {batching}", words))
        ways.append(Way(name, "pack, tuned allocator", ("--batching", "pack", "--allocator", "tuned")))
    return ways


def main() -> int:
    """Exit code 0: `tuned` is as much faster as it has to be than every trainer in every way. 1: it is not."""
    options = _options()
    found = [Measured(way, []) for way in list_ways(options.trainers)]
    shared = [
        "--model", options.model, "--dataset", options.dataset, "--sequence", str(options.sequence),
        "--precision", options.precision,
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="tunemark-trainers-") as store:
        for number in range(options.rounds):
            for each in found if number % 2 == 0 else reversed(found):
                words = [*shared, "--trainer", each.way.trainer, *each.way.words]
                each.results.append(attempt(words, warmup=options.warmup, steps=options.steps, store=Path(store)))
                rate = f"{each.rates[-1]:9,.1f} content tokens/s"
                print(f"round {number + 1}: {each.way.trainer}, {each.way.title}: {rate}", file=sys.stderr, flush=True)
    text = f"{_describe(options)}\n\n{table(found)}\n\n{sentences(found)}"
    print(text)
    if options.write:
        _PAGE.parent.mkdir(exist_ok=True)
        _PAGE.write_text(f"{_HEAD.format(command=_command())}\n{text}\n", encoding="utf-8")
    return 0 if is_ahead(found) else 1


def _command() -> str:
    """The command that this process is, with the options that it was given."""
    return shlex.join(["python", "benchmarks/trainers.py", *sys.argv[1:]])


def _describe(options: argparse.Namespace) -> str:
    what = f"{options.model}, {options.dataset}, {options.sequence} tokens, {options.precision}"
    return (
        f"{machine()}. {what}; {options.warmup} steps of warm-up, {options.steps} timed, {options.rounds} rounds of "
        "fresh processes."
    )


def ratio_to(tuned: Measured, other: Measured) -> Ratio:
    """The rate of `tuned` over another's."""
    return estimate_ratio([RatioTerm(1.0, tuned.rates), RatioTerm(-1.0, other.rates)], in_rounds=True)


def table(found: Sequence[Measured]) -> str:
    """A row for each way, with the ratio of the first to it."""
    tuned, rows = found[0], []
    for each in found:
        ratio = ratio_to(tuned, each)
        between = "" if ratio.low is None else f" ({ratio.low:.2f} to {ratio.high:.2f})"
        rates = ", ".join(f"{rate:,.0f}" for rate in sorted(each.rates))
        verdicts = ", ".join(sorted({result["verdict"] for result in each.results}))
        version = each.results[0].get("trainer_version") or ""
        rows.append([
            escape(f"{each.way.trainer} {version}".strip()), each.way.title,
            f"{statistics.median(each.rates):,.0f}", rates,
            "1" if each is tuned else f"{ratio.value:.2f}{between}",
            f"{statistics.median(r['peak_memory_bytes'] for r in each.results) / 2**30:.2f}",
            f"{statistics.median(r['time_to_first_step_s'] for r in each.results):.1f}",
            verdicts,
        ])  # fmt: skip
    header = [
        "trainer", "how", "content tokens/s, median", "each round, sorted", "tuned over it (95 %)", "memory (GiB)",
        "to the first step (s)", "verdicts",
    ]  # fmt: skip
    return markdown_table(header, rows, "<<>>>>><")


def sentences(found: Sequence[Measured]) -> str:
    """For each trainer what it is to the first in its best way as installed, and what its own figure counts."""
    tuned, lines = found[0], []
    for name in dict.fromkeys(each.way.trainer for each in found if each.way.trainer != "tunemark"):
        ways = [each for each in found if each.way.trainer == name]
        best = max(ways[:2], key=lambda each: statistics.median(each.rates))
        against = f"`tuned` is {ratio_to(tuned, best).value:.2f} times as fast as its best way as installed"
        against += f" ({best.way.title.partition(', ')[2]}), and {ratio_to(tuned, ways[-1]).value:.2f} times as fast"
        lines.append(f"- **{name}**: {against} as it is with the same allocator. {_own_figure(ways[0])}")
    return "\n".join(lines)


def _own_figure(each: Measured) -> str:
    result = each.results[0]
    stated, rate = result["trainer_tokens_per_s"], result["tokens_per_s"]["value"]
    if stated is None:
        return "It states no rate of its own."
    words = f"In padded rows it states {format_significant(stated)} tokens/s, {stated / rate:.2f} times what was seen"
    why = [f["message"] for f in result["findings"] if f["rule"].startswith("trainer-rate")]
    counts = why[0].partition(", as it counts ")[2].partition(" (")[0] if why else ""
    return f"{words}: it counts {counts}." if counts else f"{words}."


def is_ahead(found: Sequence[Measured]) -> bool:
    """Whether the first is 1.25 times as fast as every trainer as installed, and as fast as each with its allocator."""
    bars = [(each, 1.25 if "installed" in each.way.title else 1.0) for each in found if each.way.trainer != "tunemark"]
    return all(ratio_to(found[0], each).value >= bar for each, bar in bars)


def _options() -> argparse.Namespace:
    first = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=first, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--trainers", default="hf,trl,litgpt,torchtune", help="which, separated by commas")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each with every trainer in every way")
    parser.add_argument("--warmup", type=int, default=4, help="steps before the timed ones")
    parser.add_argument("--steps", type=int, default=20, help="timed steps")
    parser.add_argument("--model", default="mistral-tiny", help=" ")
    parser.add_argument("--dataset", default="python-stdlib", help=" ")
    parser.add_argument("--sequence", type=int, default=512, help="slots in a sequence, tokens")
    parser.add_argument("--precision", default="bf16-autocast", help=" ")
    parser.add_argument("--write", action="store_true", help=f"write {_PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    options.trainers = [name for name in options.trainers.split(",") if name]
    return options


if __name__ == "__main__":
    sys.exit(main())
