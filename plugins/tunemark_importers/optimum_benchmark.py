"""Reads training reports of Hugging Face's optimum-benchmark: benchmark_report.json and benchmark.json.

Source: github.com/huggingface/optimum-benchmark, `optimum_benchmark/benchmark/report.py`,
`scenarios/training/scenario.py`, `trackers/latency.py` (Throughput.from_latency) and `trackers/memory.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunemark.errors import BadData
from tunemark.plugin.claims import Claim, LoggedStep, LoggedSteps
from tunemark_importers.json_documents import as_count, as_number, object_in, parse_json_object, pop_layout

MEANING = (
    "samples of one process in all steps after warm-up, over the mean time of one of those steps: too high by a factor "
    "of the number of steps. A step's time is from its begin to its end on the device, without fetching its batch."
)

_MEGABYTE = 1e6
_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_Take = Callable[[str, Any, str], None]
"""Records a field's value and the text that it comes from, unless the value is None."""
_KIND = "a report of optimum-benchmark"


def is_document(head: str) -> bool:
    """Whether a text begins like one of its two documents, of any scenario."""
    if not head.lstrip().startswith("{"):
        return False
    measured = '"latency"' in head and ('"throughput"' in head or '"stdev_"' in head)
    return "optimum_benchmark." in head or (measured and any(f'"{name}"' in head for name in _SECTIONS))


_SECTIONS = ("overall", "warmup", "train", "load", "forward", "prefill", "decode", "per_token", "call")


def document(id: str, source: str, text: str) -> Sequence[Claim]:
    """The claim of one report. Raises `BadData` if the JSON is broken or holds no training."""
    whole = parse_json_object(text, source, "benchmark_report.json")
    report = object_in(whole, "report") if "report" in whole else whole
    config = object_in(whole, "config")
    train = object_in(report, "train")
    latency, throughput = object_in(train, "latency"), object_in(train, "throughput")
    if not latency and not throughput:
        parts = ", ".join(str(name)[:40] for name in list(report)[:8]) or "nothing"
        raise BadData(
            what=f"{source} is {_KIND} without figures of training",
            why=f"it holds {parts}; a training report has train, with latency and throughput in it",
            next="give the report of a run with scenario training",
        )
    return [_claim(id, source, report, config)]


def _claim(id: str, source: str, report: Mapping[str, Any], config: Mapping[str, Any]) -> Claim:
    facts: dict[str, Any] = {}
    origin: dict[str, str] = {}
    notes: list[str] = []

    def take(field: str, value: Any, words: str) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            notes.append(f"{field} is {value} as stated in {words}")
        elif value is not None:
            facts[field] = value
            origin[field] = words

    train, overall = object_in(report, "train"), object_in(report, "overall")
    launcher, environment = object_in(config, "launcher"), object_in(config, "environment")
    processes = as_count(launcher.get("nproc_per_node"))
    if processes is None and config and str(launcher.get("name")) in ("process", "inline"):
        processes = 1
    rate = as_number(object_in(train, "throughput").get("value"))
    unit = object_in(train, "throughput").get("unit")
    if rate is not None and unit not in (None, "samples/s"):
        notes.append(f"train.throughput is in {str(unit)[:40]!r}, not samples/s, and is not used")
    elif rate is not None and processes not in (None, 1):
        notes.append(f"train.throughput {rate} samples/s is a mean over {processes} processes, not the job's")
    else:
        take("samples_per_s", rate, "train.throughput.value")
    time_unit = object_in(train, "latency").get("unit", "s")
    if time_unit == "s":
        take("step_time_s", as_number(object_in(train, "latency").get("mean")), "train.latency.mean")
    else:
        notes.append(f"latencies are in {str(time_unit)[:40]!r}, not seconds, and are not used")
    _take_memory(train, processes, take)
    _take_scenario(config, processes, take, notes)
    _take_backend(config, environment, take, notes)
    steps = _steps(overall or train, processes)
    done = as_number(object_in(overall, "latency").get("count"))
    if processes == 1:
        take("steps_done", done, "overall.latency.count")
    layout = pop_layout(facts)
    return Claim(
        id=id, source=source, tool="optimum-benchmark", meaning=MEANING, counts=None, scope="job",
        layout=layout,
        steps=steps, origin=origin, notes=tuple(notes), **facts,
    )  # fmt: skip


def _steps(part: Mapping[str, Any], processes: int | None) -> LoggedSteps:
    """The times of single steps, unnumbered if they may be of several processes, one after the other."""
    steps = LoggedSteps()
    latency = object_in(part, "latency")
    values = latency.get("values")
    if latency.get("unit", "s") == "s" and isinstance(values, list):
        for at, value in enumerate(values, 1):
            seconds = as_number(value)
            if seconds is not None:
                number = float(at) if processes == 1 else None
                steps.add(LoggedStep(at, number=number, duration_s=seconds, duration_steps=1.0))
    return steps


def _take_memory(train: Mapping[str, Any], processes: int | None, take: _Take) -> None:
    """The peak memory of one process; the figures of several processes are sums and not used."""
    memory = object_in(train, "memory")
    for name in ("max_process_vram", "max_reserved", "max_allocated", "max_global_vram"):
        value = as_number(memory.get(name))
        if value is not None and memory.get("unit") == "MB" and processes == 1:
            take("memory_bytes", value * _MEGABYTE, f"train.memory.{name}, in MB")
            return


def _take_scenario(config: Mapping[str, Any], processes: int | None, take: _Take, notes: list[str]) -> None:
    scenario = object_in(config, "scenario") or object_in(config, "benchmark")
    arguments = object_in(scenario, "training_arguments")
    micro = as_count(arguments.get("per_device_train_batch_size"))
    accumulation = as_count(arguments.get("gradient_accumulation_steps"))
    take("micro_batch", micro, "config: per_device_train_batch_size")
    take("gradient_accumulation", accumulation, "config: gradient_accumulation_steps")
    take("sequence", as_count(object_in(scenario, "dataset_shapes").get("sequence_length")), "config: sequence_length")
    take("steps_total", as_number(scenario.get("max_steps")), "config: max_steps")
    warmup = as_number(scenario.get("warmup_steps"))
    if warmup is not None:
        notes.append(f"{warmup:g} warm-up steps are left out of the rate")
    for name in ("bf16", "fp16"):
        if arguments.get(name) is True:
            take("precision", name, f"config: {name} true")
    recompute = arguments.get("gradient_checkpointing")
    if isinstance(recompute, bool):
        take("checkpointing", "full" if recompute else "none", "config: gradient_checkpointing")
    if micro and accumulation and processes == 1:
        take("global_batch", micro * accumulation, "config: batch per device x accumulation, one process")


def _take_backend(config: Mapping[str, Any], environment: Mapping[str, Any], take: _Take, notes: list[str]) -> None:
    backend = object_in(config, "backend")
    if isinstance(backend.get("model"), str):
        take("model", backend["model"][:200], "config: backend.model")
    for name in ("dtype", "torch_dtype", "amp_dtype"):
        if isinstance(precision := backend.get(name), str):
            take("precision", _PRECISIONS.get(precision, precision[:40]), f"config: backend.{name} {precision[:40]}")
    peft = backend.get("peft_type")
    if isinstance(peft, str):
        take("method", peft.lower()[:40], "config: backend.peft_type")
    elif backend:
        take("method", "full", "config: no peft_type")
    names = environment.get("gpu")
    if isinstance(names, list) and names and len({str(name) for name in names}) == 1:
        take("device", str(names[0])[:100], "config: environment.gpu")
    elif isinstance(names, str):
        take("device", names[:100], "config: environment.gpu")
    ids = backend.get("device_ids")
    if isinstance(ids, str) and ids.replace(",", "").isdigit():
        take("count", len(ids.split(",")), f"config: device_ids {ids[:60]}")
    if isinstance(environment.get("gpu_count"), int):
        notes.append(f"the machine has {environment['gpu_count']} device(s), used or not")
