"""What a printed name means: which figure it is, of the job or of one device, in which unit, and what it counts.

Names are read by their words, whatever joins them: `tokens_per_second_per_gpu`, `throughput/device/tokens_per_sec`,
`per-GPU tokens/s` and `TGS` are all tokens per second of one device. A name that does not say of what its rate is has
the scope 'unknown'.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunemark.plugin.claims import ClaimScope, CountedTokens
from tunemark_importers.translated_words import translate_words

NamedQuantity = Literal[
    "tokens_per_s", "samples_per_s", "steps_per_s", "speed", "tflops", "mfu", "loss", "gradient_norm", "step",
    "steps_total", "epoch", "duration", "time", "elapsed", "tokens", "step_tokens", "some_tokens", "samples", "memory",
    "global_batch", "micro_batch", "gradient_accumulation", "sequence", "count", "padding", "other",
]  # fmt: skip
"""duration: of one step; elapsed: since the start; time: either, which the log has to show. tokens, samples: since the
start; step_tokens: of one step; some_tokens: either. speed: a rate whose unit stands behind the value. other: a figure
that is known, and of no use here, such as a learning rate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NameMeaning:
    """The meaning of a name.

    scale: factor from the printed value to tokens, sequences or steps per second, seconds, TFLOP/s or bytes; None if
    neither the name nor the unit tells the unit of a memory. is_mean: over more than the last step or line.
    is_training: False for generation, evaluation and the like. rank: among several names for one quantity in a line,
    the highest counts.
    """

    quantity: NamedQuantity
    scale: float | None = 1.0
    scope: ClaimScope = "unknown"
    counts: CountedTokens | None = None
    is_mean: bool = False
    is_training: bool = True
    is_per_cent: bool = False
    rank: int = 0


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DEVICES = _words(
    "gpu gpus device devices dev devs rank ranks chip chips npu npus xpu tpu card cards accelerator gcd die worker "
    "workers core cores"
)
_TOKENS = _words("token tokens tok toks tkn tokps")
_SAMPLES = _words("sample samples sequence sequences seq seqs example examples sentence sentences record records")
_STEPS = _words("step steps iter iters iteration iterations it its batch batches update updates")
_SECONDS = {
    **dict.fromkeys(_words("s sec secs second seconds"), 1.0),
    **dict.fromkeys(_words("ms msec msecs millisecond milliseconds"), 1e-3),
    **dict.fromkeys(_words("us usec µs microseconds"), 1e-6),
    **dict.fromkeys(_words("min mins minute minutes"), 60.0),
    **dict.fromkeys(_words("h hr hrs hour hours"), 3600.0),
    **dict.fromkeys(_words("day days"), 86400.0),
}
_BYTES = {
    "b": 1.0, "bytes": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30,
    "tib": 2.0**40,
}  # fmt: skip
_THOUSANDS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_NUMERALS = {
    "thousand": 1e3, "thousands": 1e3, "million": 1e6, "millions": 1e6, "tenthousand": 1e4, "hundredmillion": 1e8,
}  # fmt: skip
_FLOPS = {"flops": 1e-12, "mflops": 1e-6, "gflops": 1e-3, "tflops": 1.0, "pflops": 1e3}
_TIMES = _words("time times timing duration dt latency runtime elapsed wallclock walltime took timestamp")

_NOT_TRAINING = _words(
    "generation generate generated generating gen decode decoding prefill prompt inference infer eval evaluation "
    "evaluate validation val test rollout rollouts sampling vllm sglang request requests serving prefetch dataloader "
    "loading load tokenize tokenizer tokenization tokenizing download preprocessing preprocess map filter response "
    "responses completion"
)
_TRAINED = _words("trained trainable label labels labeled target targets supervised")
_CONTENT = _words("nonpad nonpadding nonpadded unpadded effective real actual content")
_SLOTS = _words("padded slot slots")
# Rates of these are neither of the job nor of one device.
_HOSTS = _words("node nodes host hosts machine machines server servers replica replicas")
# An extreme of many is no rate of the whole.
_EXTREMES = _words("longest shortest fastest slowest best worst maximum minimum peak max highest lowest")
_MEANS = _words("avg average mean overall running smoothed ema cumulative median total global")
_CURRENT = _words("current curr cur interval instant instantaneous last step")
_JOB = _words("total global aggregate aggregated cluster job all world combined")
_COUNTERS = _words("seen consumed processed cumulative total num so far trained")
_PARTS_OF_STEPS = _words(
    "forward fwd backward bwd optimizer optim data comm communication allreduce loader save saving checkpoint ckpt "
    "remaining eta left compile h2d reduce sync wait generation eval evaluation val reward ref rollout logp init setup "
    "start begin finish load loading"
)
_NO_LOSS = _words(
    "scale scaler aux auxiliary balancing load router z val eval test validation kl policy value vf pg critic mtp ppl "
    "entropy scaling"
)
_SPEEDS = _words("throughput speed rate perf performance")
# Rates of these are no speeds, as the learning rate.
_SHARES = _words("learning dropout decay error hit success win acceptance mask masking drop lr")

_OF_RATES = _TOKENS | _SAMPLES | _STEPS | _FLOPS.keys() | _words("tps tgs wps sps")
_BEFORE_RATES = (
    _DEVICES | _NOT_TRAINING | _TRAINED | _CONTENT | _SLOTS | _HOSTS | _EXTREMES | _MEANS | _CURRENT | _JOB | _COUNTERS
    | _SPEEDS | _NUMERALS.keys() | _words("per / p train training input model inst")
)  # fmt: skip

_IRREGULAR: Sequence[tuple[re.Pattern[str], str]] = (
    (re.compile(r"([kmgtp]?)flop(?:/s|s/s|ps|s)?(?![a-z])", re.I), r" \1flops "),
    (re.compile(r"\b(gpu|npu|tpu|xpu)s\b", re.I), r" \1s "),
    (re.compile(r"\btokens?/g/s\b", re.I), " tgs "),
    (re.compile(r"\b[kK] ?(?=[Tt]ok)"), " thousandk "),
    (re.compile(r"\bM ?(?=[Tt]ok)"), " thousandm "),
    (re.compile(r"\b[BG] ?(?=[Tt]ok)"), " thousandb "),
    (re.compile(r"\b(tps|tgs|wps|sps|mfu|hfu)\b", re.I), r" \1 "),
    (re.compile(r"non[- _]?pad(?:ding|ded)?|without padding|w/o padding|excl(?:uding|\.)? padding", re.I), " nonpad "),
    (re.compile(r"(?:with|w/|incl(?:uding|\.)?) padding", re.I), " padded "),
    (re.compile(r"model[ _]fl(?:oating[ _]point|op[s]?)[ _]utili[sz]ation", re.I), " mfu "),
    (re.compile(r"hardware[ _]fl(?:oating[ _]point|op[s]?)[ _]utili[sz]ation", re.I), " hfu "),
    # `tokens/s (x1000)`, `tokens/s (10^3)`.
    (re.compile(r"[(\[]\s*(?:[x\u00d7*]\s*)?(?:1,?000|10(?:\^|\*\*)?3|10\u00b3|1e3|k)\s*[)\]]", re.I), " thousands "),
    (re.compile(r"[(\[]\s*(?:[x\u00d7*]\s*)?(?:1,?000,?000|10(?:\^|\*\*)?6|10\u2076|1e6|M)\s*[)\]]"), " millions "),
    # `step (ms)` is the time of a step; `steps` and `step_s` are not.
    (re.compile(r"^\s*(step|iter|iteration|batch)(?:[ _]*[(\[]\s*(ms|s|secs?|seconds)\s*[)\]]|[ _](ms|secs?|seconds))"
                r"\s*$", re.I), r"\1 time \2\3"),
)  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-zµ])|[A-Z]?[a-zµ]+|[0-9]+|[/%]")
_MAX_NAME = 120


@functools.lru_cache(maxsize=8192)
def meaning_of(name: str, unit: str = "") -> NameMeaning | None:
    """The meaning of a name, with the unit that stands behind the value if there is one; None if it has none here, or
    if name and unit contradict each other."""
    if len(name) > _MAX_NAME or len(unit) > _MAX_NAME or "://" in name:
        return None
    words, behind = _split_words(name), _split_words(unit)
    if not words and not behind:
        return None
    found = _rate(words, behind) or _share(words, behind) or _duration(words, behind)
    return found or _counter(words, behind) or _fact(words, behind)


def unit_factor(unit: str) -> float | None:
    """The factor of a unit of time, bytes, or thousands to its SI unit; None for other words."""
    word = unit.strip().rstrip(".").lower()
    if unit.strip() == "%":
        return 0.01
    return _SECONDS.get(word, _BYTES.get(word, _THOUSANDS.get(word)))


@functools.lru_cache(maxsize=8192)
def unit_meaning(text: str) -> NameMeaning | None:
    """The meaning of words behind a number. A rate's must begin with words that are known: what stands before the unit,
    such as `Tsd.` for thousands, may be a factor."""
    meaning = meaning_of(text) or meaning_of("", text)
    if meaning is None or not meaning.quantity.endswith("_per_s"):
        return meaning
    if not translate_words(text).isascii():
        return None
    words = _split_words(text)
    first = next((at for at, word in enumerate(words) if word in _OF_RATES), 0)
    return meaning if all(word in _BEFORE_RATES or word.startswith("thousand") for word in words[:first]) else None


@functools.lru_cache(maxsize=8192)
def is_name_of_number(text: str) -> bool:
    """Whether a name of a rate that stands before a number, without a sign between, can be that number's: it ends in
    words of the rate, and not in those of a sentence."""
    words = _split_words(text)
    last = max((at for at, word in enumerate(words) if word in _OF_RATES | _SECONDS.keys() | _DEVICES), default=0)
    return sum(word not in _BEFORE_RATES for word in words[last + 1 :]) < 2


@functools.lru_cache(maxsize=8192)
def is_unit(text: str) -> bool:
    """Whether a text is the unit of a rate and nothing else, as `tokens per second per GPU`."""
    kinds = []
    for word in _split_words(text[:_MAX_NAME]):
        if word in ("per", "/"):
            kinds.append("/")
        elif word in _TOKENS | _SAMPLES | _STEPS | _SECONDS.keys() | _DEVICES | _FLOPS.keys():
            kinds.append("x")
        elif word in ("tps", "tgs", "wps", "sps"):
            kinds.append("y")
        elif not (word.startswith("thousand") and not kinds):
            return False
    return re.fullmatch(r"(?:x(?:/x)+|y(?:/x)*)", "".join(kinds)) is not None


def _split_words(name: str) -> list[str]:
    name = translate_words(name)
    for pattern, by in _IRREGULAR:
        name = pattern.sub(by, name)
    return [word.lower() for word in _WORD.findall(name)]


def _rate(words: list[str], behind: list[str]) -> NameMeaning | None:
    """Tokens, sequences, steps or FLOP per second, and per device; seconds per step."""
    vague = not set(words) & (_TOKENS | _SAMPLES | _FLOPS.keys() | {"tps", "tgs", "wps", "sps"})
    if behind and vague and ((set(words) & _SPEEDS and not set(words) & _SHARES) or not words):
        unit = _rate(behind, [])
        return None if unit is None else _qualified(unit, [*words, *behind])
    if behind and set(behind) <= {"per", *_DEVICES}:
        # `tokens/s: 4096 (per GPU)`.
        meaning = _rate(words, [])
        return None if meaning is None else replace(meaning, scope="device")
    above, below, scale = _fraction(words)
    if scale is None:
        return None
    if behind:
        # `tokens/s: 4.1K`, or a unit that repeats the name.
        if len(behind) == 1 and behind[0] in _THOUSANDS:
            scale *= _THOUSANDS[behind[0]]
        elif (again := _rate(behind, [])) is None:
            return None
        elif above == {"flops"} and again.quantity == "tflops":
            scale = again.scale or 1.0
    if above == {"tokens"} and "seconds" in below:
        meaning = NameMeaning(quantity="tokens_per_s", scale=scale)
    elif above == {"samples"} and "seconds" in below:
        meaning = NameMeaning(quantity="samples_per_s", scale=scale)
    elif above == {"steps"} and "seconds" in below:
        meaning = NameMeaning(quantity="steps_per_s", scale=scale)
    elif above == {"seconds"} and "steps" in below:
        meaning = NameMeaning(quantity="duration", scale=scale)
    elif above == {"flops"}:
        # FLOP without a time are FLOP/s only if they are counted in millions: the work of a step is not.
        if "seconds" not in below and not set(words) & (_FLOPS.keys() - {"flops"}) and not behind:
            return None
        meaning = NameMeaning(quantity="tflops", scale=scale)
    elif not above and not below and set(words) & _SPEEDS and not behind and words[-1] in _SPEEDS:
        return _qualified(NameMeaning(quantity="speed"), words) if "rate" not in words else None
    else:
        return None
    if set(words) & _HOSTS and {"per", "/"} & set(words):
        return NameMeaning(quantity="other")
    if "devices" in below:
        meaning = replace(meaning, scope="device")
    return _qualified(meaning, words)


def _fraction(words: list[str]) -> tuple[set[str], set[str], float | None]:
    """What stands above and below the fraction bar of a rate, and the factor to its SI unit; None if it is no rate."""
    above: set[str] = set()
    below: set[str] = set()
    scale, is_below, last = 1.0, False, ""
    for at, word in enumerate(words):
        following = words[at + 1] if at + 1 < len(words) else ""
        if word in ("per", "/", "p"):
            # In `throughput/device/tokens_per_sec` the bar separates parts of a path: nothing stands above it.
            is_path = word == "/" and not above
            is_below = bool(following) and not is_path
            last = word
            continue
        kind = ""
        if word in ("tps", "wps"):
            above.add("tokens")
            below.add("seconds")
        elif word == "tgs":
            above.add("tokens")
            below |= {"seconds", "devices"}
        elif word == "sps":
            above.add("samples")
            below.add("seconds")
        elif word.startswith("thousand") and word[8:] in _THOUSANDS:
            scale *= _THOUSANDS[word[8:]]
        elif word in _NUMERALS:
            scale *= _NUMERALS[word]
        elif word in _TOKENS:
            kind = "tokens"
        elif word in _SAMPLES:
            kind = "samples"
        elif word in _FLOPS:
            above.add("flops")
            scale *= _FLOPS[word]
        elif word in _DEVICES:
            # `device/tokens_per_sec` and `GPU tokens/s` are of one device; `8 GPUs` and `all ranks` are not.
            plural = word.endswith("s") and not is_below
            if not plural and not (at and words[at - 1] in ("all", "num", "n")):
                below.add("devices")
            is_below = False
        elif word in _SECONDS and (is_below or (at and words[at - 1] in _TOKENS | _SAMPLES | _STEPS) or not above):
            if is_below or above & {"tokens", "samples"} or (above and last != "/"):
                below.add("seconds")
                scale /= _SECONDS[word]
            elif following in ("per", "/"):
                above.add("seconds")
                scale *= _SECONDS[word]
            is_below = False
        elif word in _STEPS:
            kind = "steps"
        if kind:
            (below if is_below else above).add(kind)
            is_below = False
    if "tokens" in above or "samples" in above or "flops" in above:
        # `train step tokens/s`: of several things above the bar, steps only qualify.
        above.discard("steps")
    if len(above) > 1 and "tokens" in above:
        above = {"tokens"} if "seconds" in below else above
    return above, below, scale


def _qualified(meaning: NameMeaning, words: Sequence[str]) -> NameMeaning:
    """With what other words of the name say: scope, tokens counted, a mean, or that it is no training."""
    found = set(words)
    scope = meaning.scope
    per_device = found & _DEVICES and found & {"per", "each"} and not found & {"all", "total"}
    if per_device or (scope == "unknown" and "local" in found):
        scope = "device"
    elif scope == "unknown" and found & _JOB:
        scope = "job"
    counts: CountedTokens | None = meaning.counts
    if found & _TRAINED or {"loss", "tokens"} <= found:
        counts = "trained"
    elif found & _CONTENT:
        counts = "content"
    elif found & _SLOTS:
        counts = "slots"
    is_mean = bool(found & (_MEANS - {"total", "global"}))
    return replace(
        meaning, scope=scope, counts=counts, is_mean=is_mean, is_training=not found & (_NOT_TRAINING | _EXTREMES),
        rank=(1 if found & _CURRENT else -1 if is_mean else 0) + bool(found & {"train", "training"}),
    )  # fmt: skip


def _share(words: list[str], behind: list[str]) -> NameMeaning | None:
    per_cent = "%" in behind or "%" in words or "percent" in words or "pct" in words
    if "mfu" in words:
        return NameMeaning(quantity="mfu", is_per_cent=per_cent, scale=0.01 if per_cent else 1.0)
    if "hfu" in words:
        return NameMeaning(quantity="other")
    if words and words[0] == "padding" and (len(words) == 1 or words[1] in ("fraction", "share", "ratio", "%")):
        return NameMeaning(quantity="padding", is_per_cent=per_cent, scale=0.01 if per_cent else 1.0)
    return None


def _duration(words: list[str], behind: list[str]) -> NameMeaning | None:
    found = set(words)
    named = [w for w in words if w in _SECONDS]
    # `step_avg: 142 ms`: the unit says what the name does not.
    has_unit = len(behind) == 1 and behind[0] in _SECONDS
    is_timed_step = has_unit and bool(found & (_STEPS | {"interval"})) and found <= _STEPS | _MEANS | {"interval"}
    if not found & _TIMES and not is_timed_step and not (named and len(found - set(named) - {"in"}) == 0):
        return None
    if found & _PARTS_OF_STEPS:
        return NameMeaning(quantity="other")
    in_name = _SECONDS[named[-1]] if named and words[-1] in _SECONDS else None
    in_unit = _SECONDS.get(behind[0]) if len(behind) == 1 else None
    if behind == ["m"]:
        in_unit = 60.0
    if (behind and in_unit is None) or (in_name and in_unit and in_name != in_unit):
        return None
    scale = in_unit or in_name or 1.0
    is_step = bool(found & (_STEPS - {"its"})) or "dt" in found or "duration" in found
    if "interval" in found:
        quantity: NamedQuantity = "time"
    elif "total" in found or "runtime" in found or "wallclock" in found or "walltime" in found:
        quantity = "other" if is_step else "elapsed"
    elif is_step:
        quantity = "duration"
    elif found & {"elapsed", "timestamp"}:
        quantity = "elapsed"
    elif found <= {*_TIMES, *_SECONDS, "in", "train", "training", "wall", "clock"} and "times" not in found:
        quantity = "elapsed" if "wall" in found else "time"
    else:
        quantity = "other"
    is_mean = bool(found & _MEANS)
    return NameMeaning(
        quantity=quantity, scale=scale, is_mean=is_mean, rank=1 if found & (_CURRENT - {"step"}) else -is_mean
    )


def _counter(words: list[str], behind: list[str]) -> NameMeaning | None:
    """Tokens and sequences that are counted, and sizes of batches."""
    found = set(words)
    if found & _TIMES or ("per" in found and not found & _STEPS):
        return None
    scale = _THOUSANDS.get(behind[0]) if len(behind) == 1 else 1.0
    if scale is None and behind and behind[0] in _TOKENS | _SAMPLES:
        scale = 1.0
    if scale is None:
        return None
    if len(words) > 1 and words[-1] in _THOUSANDS and words[-2] in _TOKENS:
        scale *= _THOUSANDS[words[-1]]
    if found & _TOKENS and not found & {"vocab", "vocabulary", "max", "generated", "prompt", "id", "loss"}:
        if found & _STEPS or found - {"train", "/"} == {"global", "tokens"}:
            return NameMeaning(quantity="step_tokens", scale=scale)
        if found & _COUNTERS:
            return NameMeaning(quantity="tokens", scale=scale)
        return NameMeaning(quantity="some_tokens", scale=scale) if len(found) <= 2 else None
    if found & {"sample", "samples", "sequences"} and found & (_COUNTERS - {"num"}):
        return NameMeaning(quantity="samples", scale=scale)
    return None


def _fact(words: list[str], behind: list[str]) -> NameMeaning | None:
    found = set(words)
    if found & {"memory", "mem", "vram"} or (found & {"reserved", "allocated"} and not found & {"cpu", "ram"}):
        # 61G of memory are as many gigabytes.
        short = [f"{w}b" if w in ("k", "m", "g", "t") and len(behind) == 1 else w for w in behind]
        units = [w for w in (*short, *words[-1:]) if w in _BYTES]
        if behind and not units:
            return None
        return NameMeaning(quantity="memory", scale=_BYTES[units[0]] if units else None)
    if behind or not words:
        # No other figure has a unit.
        return None
    if "loss" in found:
        is_loss = not found & _NO_LOSS
        return NameMeaning(quantity="loss", rank=int("train" in found)) if is_loss else NameMeaning(quantity="other")
    if {"grad", "norm"} <= found or {"gradient", "norm"} <= found or found in ({"norm"}, {"gnorm"}, {"g", "norm"}):
        return NameMeaning(quantity="gradient_norm")
    if (
        {"batch", "size"} <= found
        or found in ({"global", "batch"}, {"effective", "batch"})
        or found in ({"bs"}, {"gbs"}, {"mbs"})
    ):
        if found & {"global", "total", "gbs", "effective"} or {"train", "batch", "size"} == found:
            return NameMeaning(quantity="global_batch")
        return NameMeaning(quantity="micro_batch" if found & {"micro", "mbs", "device", "gpu"} else "other")
    if {"accumulation", "accum"} & found and {"gradient", "grad", "steps", "step"} & found:
        return NameMeaning(quantity="gradient_accumulation")
    if found & {"seqlen"} or {"seq", "len"} <= found or {"seq", "length"} <= found or {"sequence", "length"} <= found:
        return NameMeaning(quantity="other" if found & {"max", "mean", "avg", "min"} else "sequence")
    if found & {"rank", "worker", "node", "host", "process"} and found <= {
        "rank", "local", "global", "worker", "node", "host", "process", "id", "gpu",
    }:  # fmt: skip
        return NameMeaning(quantity="other")
    if {"world", "size"} <= found or (found & {"num", "n"} and found & {"gpus", "devices"}):
        return NameMeaning(quantity="count")
    if "epoch" in found or "epochs" in found:
        return NameMeaning(quantity="other" if found & {"num", "total", "max", "steps", "step"} else "epoch")
    if found & _STEPS:
        return _step(words)
    if words[-1] in ("lr", "rate") or found & {"lr", "lrm", "ppl", "perplexity", "accuracy", "acc", "eta"}:
        return NameMeaning(quantity="other")
    return None


def _step(words: list[str]) -> NameMeaning | None:
    """The number of a step: an optimizer step before an iteration, which may be a micro-batch."""
    found = set(words)
    rest = (
        found - _STEPS - {"global", "train", "training", "current", "completed", "optimizer", "opt", "trainer", "time"}
    )
    if rest & {"total", "max", "num", "n"} and not rest - {"total", "max", "num", "n"}:
        return NameMeaning(quantity="steps_total")
    if rest - {"trained", "done", "finished", "number", "no"} or not words or words[-1] == "its":
        return NameMeaning(quantity="other") if rest & {"micro", "skipped", "nan", "warmup", "save", "eval"} else None
    rank = 3 if found & {"step", "steps"} else 2 if found & {"iter", "iters", "iteration", "iterations", "it"} else 1
    return NameMeaning(quantity="step", rank=rank + ("global" in found))
