"""The interface between parent and worker: the assignment in, the records out, and the token file that both read.

The worker stores instants and counts; the parent derives rates and the warm-up from them later.
Instants are seconds of CLOCK_MONOTONIC on the rank's own host and are comparable within one rank only.
"""

# Declared settings have no default, which mypy cannot see: it would refuse fields without one after them.
# mypy: disable-error-code="misc"

from __future__ import annotations

import dataclasses
import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from tunemark_worker.training_settings import VALUES_BEFORE, TrainingSettings

# Schema version of plan.json, records.<rank>.jsonl and the token file. History:
#   1  first form
SCHEMA = 1

# File in a saved model's folder that says which run produced it.
PROVENANCE_FILE = "tunemark.json"

# Label of tokens without loss: the default of torch's cross_entropy(ignore_index=).
IGNORED_LABEL = -100


@dataclasses.dataclass(frozen=True)
class TokenFile:
    """The token file and what must be true of it.

    path: absolute. sha256: of the whole file. documents, tokens: counts. pad_id: id that fills padding slots.
    """

    path: str
    sha256: str
    documents: int
    tokens: int
    pad_id: int


@dataclasses.dataclass(frozen=True)
class Assignment(TrainingSettings):
    """What the worker processes of one attempt have to do, with every default resolved. Stored as plan.json.

    The `*_runtime` fields are "package.module:Name", imported from PYTHONPATH in the worker only.
    axes: of the mesh of processes, the last varying fastest, each {strategy, degree, options}.
    measure_peak: first measure the device's peak of matrix multiplication. evaluate: documents held out of training.
    sample_ids: a prompt, completed by up to sample_tokens ids or
    until eos_id. save: absolute path of the model to save; None if none is saved. trainer_runtime: of another program's
    training loop; empty for the worker's own.
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
    token_file: TokenFile
    gradient_accumulation: int
    data_ranks: int
    epochs: Optional[int]
    steps: Optional[int]
    warmup: Optional[int]
    budget_s: Optional[float]
    target_interval: float
    window_s: float
    measure_peak: bool
    breakdown: bool
    processes: int
    threads: int
    device_options: Dict[str, Any]
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
    trainer_runtime: str = ""
    trainer_options: Dict[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Assignment:
        """Parse an assignment; ValueError if keys are missing or unknown, or if it has another schema."""
        raw = json.loads(text)
        if raw.get("schema") != SCHEMA:
            raise ValueError("assignment of schema {}, this worker reads {}".format(raw.get("schema"), SCHEMA))
        raw["token_file"] = TokenFile(**raw["token_file"])
        if "calibrate" in raw:  # its name until 0.1.0
            raw["measure_peak"] = raw.pop("calibrate")
        try:
            return cls(**{**VALUES_BEFORE, **raw})
        except TypeError as error:
            raise ValueError("not an assignment: {}".format(error)) from error


class Place(NamedTuple):
    """The position of this process in the job.

    device: torch's name for it ("cpu", "cuda:0"). rank of ranks: processes. data_rank of data_ranks: distinct batches.
    """

    device: str
    rank: int
    ranks: int
    data_rank: int
    data_ranks: int


# Kinds of record, one JSON object a line, whose last field `chain` is its link (record_chain), in the order of a
# successful attempt:
#   start  {pid, python, utc}                           the process has started
#   phase  {name}                                       a phase of the set-up has ended
#   facts  {...}                                        versions, threads, facts about the device
#   peak   {precision, flops, path, tried}              measured peak of matrix multiplication
#   probe  {is_queued, work_s, late_s}                  for the kit: whether `synchronize` waits for a deep queue
#   step   {step, slots, content, trained, loss_sum, gradient_norm, learning_rate, synced, marks,
#          widths,                                    `--batching bucket` only: slots of a row of each micro-batch
#          samples}                                   first steps only: a hash of each row on this rank
#                                                     marks: [part, instant] of each part's end, if parts are timed;
#                                                     its waits for other ranks follow it, as `communication`
#   edge   {window, steps, synced,                      a window's edge; window 0 starts at edge 0
#          second_s, witness_s, reread_s,             a second clock: before a value that depends on the last update
#                                                     was read, after that, and after one was read that does not
#          compilations, compile_s}                   if the device counts them: programs compiled so far, and seconds
#   load   {busy_s, own_s, minor_faults}                CPU seconds so far of the machine and of the process
#   model  {parameters, trainable_parameters, weights}  the model as built, before any strategy changed it
#   evaluation {moment, documents, rows, targets, loss_sum}  the held-out loss before or after training
#   sample {moment, ids}                                a greedy completion before or after training
#   saved  {path, bytes, files}                         the model was written
#   trainer {name, version, differs}                    another program's training loop begins; differs: by setting
#   reference {loss_sum, trained}                       the first step's loss as the worker itself computes it before
#   trainer_end {windows, still, passed, foreign,       the loop has ended: windows after which no sampled weight had
#          first_foreign, own}                          changed; micro-batches that passed the model, and those of them
#                                                       that are not the token file's; own: the loop's own rate
#   end    {reason, status, ...}                        missing if the process was killed
RECORD_KINDS = (
    "start", "phase", "facts", "peak", "probe", "step", "edge", "load", "model", "evaluation", "sample", "saved",
    "trainer", "reference", "trainer_end", "end",
)  # fmt: skip


def encode_record(kind: str, rank: int, instant_s: float, fields: Mapping[str, Any]) -> bytes:
    """One record as a line of JSON. Non-finite floats are written as the strings "nan", "inf", "-inf"."""
    assert kind in RECORD_KINDS, kind
    row = {"kind": kind, "rank": rank, "instant_s": instant_s}
    row.update({key: _encode_non_finite(value) for key, value in fields.items()})
    return (json.dumps(row, allow_nan=False, separators=(",", ":")) + "\n").encode()


def decode_record(line: str) -> Dict[str, Any]:
    """Parse the record of one complete line; ValueError if it is not a record."""
    row = json.loads(line)
    if (
        not isinstance(row, dict)
        or row.get("kind") not in RECORD_KINDS
        or not isinstance(row.get("instant_s"), (int, float))
    ):
        raise ValueError("not a record")
    row.pop("chain", None)
    return {key: _NON_FINITE.get(value, value) if isinstance(value, str) else value for key, value in row.items()}


_NON_FINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def _encode_non_finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return "nan" if value != value else "inf" if value > 0 else "-inf"
    return value


# The token file: a JSON header padded with blanks to HEADER_BYTES, then consecutive little-endian arrays:
#   ids      int32 [tokens]
#   trained  uint8 [tokens]         1 for tokens with a loss (first tokens of documents included)
#   offsets  int64 [documents + 1]  document d is ids[offsets[d]:offsets[d + 1]]
# with padding before offsets, so that it starts at a multiple of 8.
HEADER_BYTES = 4096


class TokenFileOffsets(NamedTuple):
    """Byte offsets of the token file's arrays, and of its end."""

    ids: int
    trained: int
    offsets: int
    end: int


def token_file_offsets(documents: int, tokens: int) -> TokenFileOffsets:
    """Byte offsets for a token file with so many documents and tokens."""
    trained = HEADER_BYTES + 4 * tokens
    offsets = (trained + tokens + 7) // 8 * 8
    return TokenFileOffsets(HEADER_BYTES, trained, offsets, offsets + 8 * (documents + 1))


def records_file_name(rank: int, life: int = 0) -> str:
    """Name of the file with a rank's records. life: how often the rank was restarted before; each process has its own
    file, so that no file mixes instants of two processes."""
    return "records.{}.jsonl".format(rank) if life == 0 else "records.{}.life{}.jsonl".format(rank, life)


def stacks_file_name(rank: int) -> str:
    """Name of the file that a rank writes its stacks to on SIGUSR1."""
    return "stacks.{}.txt".format(rank)


# Environment variable with where a job's ranks meet, as JSON: {path} of a file, or {host, port, key} of a TCPStore.
RANK_STORE_VARIABLE = "TUNEMARK_RANK_STORE"

# Environment variable that counts how often the job's ranks were started before.
LIFE_VARIABLE = "TUNEMARK_LIFE"

# Environment variable, set by the kit to have the device's queue probed before training.
PROBE_VARIABLE = "TUNEMARK_PROBE_QUEUE"
# Share of the probe's work that may be left after `synchronize`. A busy machine delays a reading by some percent; a
# device that does not wait leaves nearly all.
MAX_LATE = 0.2

# Environment variable with the pid of the job's parent on this host: without the parent nobody reads the records.
PARENT_PID_VARIABLE = "TUNEMARK_PARENT"


def code_variables(folder: str) -> Dict[str, str]:
    """Environment variables of every process that runs a copy of the code."""
    return {"PYTHONPATH": folder, "PYTHONUNBUFFERED": "1"}


def split_runtime(name: str) -> List[str]:
    """["package.module", "Name"] of a runtime's name; ValueError if it is malformed."""
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ValueError("a runtime is named 'package.module:Name', not {!r}".format(name))
    return [module, attribute]
