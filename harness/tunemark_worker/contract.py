"""All that parent and worker say to each other: the assignment in, the records out, and the token file both read.

The worker stores instants and counts; a rate, and what was warm-up, are readings that the parent makes later.
Instants are seconds of CLOCK_MONOTONIC of the rank's own host and are compared within one rank only.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

# History of the schema (of plan.json, records.<rank>.jsonl and the token file):
#   1  first form
SCHEMA = 1

# The file of a saved model's folder that says which run left it.
SAVED_BY = "tunemark.json"

# Where no loss is taken. The value is torch's own default of cross_entropy(ignore_index=).
IGNORED_LABEL = -100

# Seconds that a window lasts where waiting for the device costs something: one 50 us wait is then 0.005 %.
WINDOW_S = 1.0


@dataclasses.dataclass(frozen=True)
class TokenFile:
    """Where the flat token file lies and what it must be.

    path: absolute. sha256: of the whole file. documents, tokens: counts. pad_id: fills slots that hold no content.
    """

    path: str
    sha256: str
    documents: int
    tokens: int
    pad_id: int


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What one attempt's worker processes have to do; every default is already resolved.

    The `*_runtime` fields are "package.module:Name", looked up on PYTHONPATH in the worker alone.
    axes: of the mesh of processes, the last varying fastest, each {strategy, degree, options}.
    Batches count sequences: `micro_batch` per forward and data rank, `global_batch` per step and job.
    evaluate: documents kept out of training. sample_ids: a prompt, completed by up to sample_tokens or to eos_id.
    save: an absolute path, None where this attempt leaves no model.
    """

    run_id: str
    attempt: str
    model: str
    model_runtime: str
    architecture: Dict[str, Any]
    device: str
    size: str
    device_runtime: str
    strategy: str
    strategy_runtime: str
    strategy_options: Dict[str, str]
    method: str
    token_file: TokenFile
    precision: str
    batching: str
    sequence: int
    micro_batch: int
    global_batch: int
    gradient_accumulation: int
    data_ranks: int
    weights: str
    optimizer: str
    learning_rate: float
    schedule: str
    clip_norm: float
    seed: int
    epochs: Optional[int]
    steps: Optional[int]
    warmup: Optional[int]
    budget_s: Optional[float]
    target_interval: float
    window_s: float
    calibrate: bool
    breakdown: bool
    processes: int
    threads: int
    device_options: Dict[str, Any]
    checkpointing: str = "none"
    axes: List[Dict[str, Any]] = dataclasses.field(default_factory=list)
    schema: int = SCHEMA
    method_options: Dict[str, Any] = dataclasses.field(default_factory=dict)
    evaluate: int = 0
    sample_ids: List[int] = dataclasses.field(default_factory=list)
    sample_tokens: int = 0
    eos_id: Optional[int] = None
    save: Optional[str] = None
    trust_remote_code: bool = False
    allow_pickle: bool = False

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Assignment:
        """Read an assignment; a key too many or too few, or another schema, is a ValueError."""
        raw = json.loads(text)
        if raw.get("schema") != SCHEMA:
            raise ValueError("assignment of schema {}, this worker reads {}".format(raw.get("schema"), SCHEMA))
        raw["token_file"] = TokenFile(**raw["token_file"])
        try:
            return cls(**raw)
        except TypeError as error:
            raise ValueError("not an assignment: {}".format(error)) from error


class Place(NamedTuple):
    """Where this process stands in the job.

    device: what torch calls it ("cpu", "cuda:0"). rank of ranks: processes. data_rank of data_ranks: distinct batches.
    """

    device: str
    rank: int
    ranks: int
    data_rank: int
    data_ranks: int


# Kinds of record, one JSON object a line, in the order of a healthy attempt:
#   start  {pid, python, utc}                           the process lives
#   phase  {name}                                       a part of the set-up has ended
#   facts  {...}                                        versions, threads, what the device says of itself
#   peak   {precision, flops, path, tried}              measured peak of matrix multiplication
#   step   {step, slots, content, trained, loss_sum, gradient_norm, learning_rate, synced, marks,
#          samples}                                   the first steps alone: a digest of each row on this rank
#                                                     marks: [part, instant] of each part's end, where parts are timed;
#                                                     its waits for other ranks follow it, as `communication`
#   edge   {window, steps, synced, second_s, witness_s} a window's edge; window 0 begins with edge 0
#   load   {busy_s, own_s, minor_faults}                the machine's and the process's CPU seconds so far
#   model  {parameters, trainable_parameters, weights}  what was built, before any strategy changed it
#   evaluation {moment, documents, rows, targets, loss_sum}  the held-out loss before or after training
#   sample {moment, ids}                                a greedy completion before or after training
#   saved  {path, bytes, files}                         the model was written
#   end    {reason, status, ...}                        missing after a kill: that is the diagnosis
KINDS = ("start", "phase", "facts", "peak", "step", "edge", "load", "model", "evaluation", "sample", "saved", "end")


def encode(kind: str, rank: int, instant_s: float, fields: Mapping[str, Any]) -> bytes:
    """One record as a line of JSON. Non-finite floats are written as the strings "nan", "inf", "-inf"."""
    assert kind in KINDS, kind
    row = {"kind": kind, "rank": rank, "instant_s": instant_s}
    row.update({key: _writable(value) for key, value in fields.items()})
    return (json.dumps(row, allow_nan=False, separators=(",", ":")) + "\n").encode()


def decode(line: str) -> Dict[str, Any]:
    """The record of one whole line; ValueError where it is none."""
    row = json.loads(line)
    if not isinstance(row, dict) or row.get("kind") not in KINDS or not isinstance(row.get("instant_s"), (int, float)):
        raise ValueError("not a record")
    return {key: _NON_FINITE.get(value, value) if isinstance(value, str) else value for key, value in row.items()}


_NON_FINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def _writable(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return "nan" if value != value else "inf" if value > 0 else "-inf"
    return value


# The token file: a JSON header padded with blanks to HEADER_BYTES, then little-endian arrays one after another:
#   ids      int32 [tokens]
#   trained  uint8 [tokens]         1 where the experiment takes a loss (documents' first tokens included)
#   offsets  int64 [documents + 1]  document d is ids[offsets[d]:offsets[d + 1]]
# padded so that offsets begins at a multiple of 8.
HEADER_BYTES = 4096


class TokenLayout(NamedTuple):
    """Byte positions of the token file's arrays."""

    ids: int
    trained: int
    offsets: int
    end: int


def token_layout(documents: int, tokens: int) -> TokenLayout:
    """Where each array of a token file begins, and where the file ends."""
    trained = HEADER_BYTES + 4 * tokens
    offsets = (trained + tokens + 7) // 8 * 8
    return TokenLayout(HEADER_BYTES, trained, offsets, offsets + 8 * (documents + 1))


def records_name(rank: int, life: int = 0) -> str:
    """The file of a rank's records. life: how often its processes were started again before; each has its own file,
    so that no file holds instants of two processes."""
    return "records.{}.jsonl".format(rank) if life == 0 else "records.{}.life{}.jsonl".format(rank, life)


def stacks_name(rank: int) -> str:
    """The file that a rank writes its stacks to when it is asked by SIGUSR1."""
    return "stacks.{}.txt".format(rank)


# Set to "1" for torchrun where processes may be started again. Its agent otherwise keeps one store for all lives (torch
# 2.6 to 2.13), in which the next one finds the addresses of ranks that are gone: it is refused, or waits half an hour.
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


# The process that follows this job, on the job's own host: when it is gone, nobody takes in what is measured.
PARENT = "TUNEMARK_PARENT"


def split_runtime(name: str) -> List[str]:
    """("package.module", "Name") of a runtime's dotted name; ValueError where it is malformed."""
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ValueError("a runtime is named 'package.module:Name', not {!r}".format(name))
    return [module, attribute]
