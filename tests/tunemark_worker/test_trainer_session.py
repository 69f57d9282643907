"""Trainers that do not do what they say: each is found out by what passes the model, or by what was updated."""

from __future__ import annotations

import itertools
import json
import random
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from tunemark.results.measurement import JobTokens, Measurement, read_measurement
from tunemark.results.run_rules import check_slots
from tunemark.results.timed_part import TimedPart
from tunemark.results.token_recount import TokenDocuments, recount_tokens
from tunemark.results.trainer_rates import CountedSpan, check_own_rate, judge_own_rate
from tunemark.results.trainer_rules import judge_trainer
from tunemark_worker import row_packing, trainer_session
from tunemark_worker.batches import Batch, MappedTokens, make_batch
from tunemark_worker.contract import HEADER_BYTES, Assignment, Place, TokenFile, token_file_offsets
from tunemark_worker.no_strategy import NoStrategy
from tunemark_worker.recorder import Recorder
from tunemark_worker.training_loop import TrainingJob
from tunemark_worker.training_settings import VALUES_BEFORE

VOCABULARY = 32
STEPS = 4


class Bigrams(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, 8)
        self.head = torch.nn.Linear(8, VOCABULARY, bias=False)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(input_ids))


class BigramRuntime:
    def build(self, assignment, place):
        return Bigrams()

    def logits(self, module, batch):
        return module(input_ids=batch.input_ids)


class Cpu:
    is_synchronous = True

    def open(self, assignment):
        return Place("cpu", 0, 1, 0, 1)

    def synchronize(self):
        pass

    def peak_memory_bytes(self):
        return None

    def facts(self):
        return {}


class PlainLoop:
    """A loop that trains as the worker's own does; the faulty ones change one part of it."""

    differs: ClassVar[dict[str, str]] = {}

    def facts(self) -> dict[str, Any]:
        return {"version": "1", "differs": self.differs}

    def prepare(self, module: torch.nn.Module) -> torch.nn.Module:
        return module

    def take(self, session: trainer_session.TrainerSession) -> Any:
        return session.micro_batches()

    def ids(self, batch: Batch) -> torch.Tensor:
        return batch.input_ids

    def updates(self, step: int) -> bool:
        return True

    def train(self, session: trainer_session.TrainerSession) -> None:
        module = self.prepare(session.module)
        session.watch(module)
        optimizer = torch.optim.AdamW(module.parameters(), lr=session.assignment.learning_rate)
        for step, batch in enumerate(self.take(session)):
            scores = module(input_ids=self.ids(batch))
            labels = batch.labels[:, 1 : scores.shape[1]].flatten()
            loss = torch.nn.functional.cross_entropy(scores[:, :-1].flatten(0, 1), labels)
            loss.backward()
            if self.updates(step):
                optimizer.step()
            optimizer.zero_grad()
            if not session.step_ended(loss.detach()):
                return


class OtherWeights(PlainLoop):
    def prepare(self, module):
        torch.manual_seed(7)
        return Bigrams()


class OtherOrder(PlainLoop):
    def take(self, session):
        batches = session.micro_batches()
        while True:
            pair = list(itertools.islice(batches, 2))
            yield from reversed(pair)


class OtherTokens(PlainLoop):
    def ids(self, batch):
        return (batch.input_ids + 1) % VOCABULARY


class HalfRows(PlainLoop):
    """Trains on the beginnings of rows, and counts them whole."""

    def ids(self, batch):
        return batch.input_ids[:, : batch.input_ids.shape[1] // 2]


class SkipsUpdates(PlainLoop):
    def updates(self, step):
        return step % 2 == 0


class DynamicPadding(PlainLoop):
    differs: ClassVar[dict[str, str]] = {"padding": "rows are as long as the longest of them"}

    def ids(self, batch):
        longest = int((batch.document_ids >= 0).sum(dim=1).max())
        return batch.input_ids[:, :longest]


class Silent(PlainLoop):
    """Ends steps in which nothing passes the model."""

    def train(self, session):
        session.watch(session.module)
        for _ in session.micro_batches():
            if not session.step_ended(torch.tensor(1.0)):
                return


class EndsEarly(PlainLoop):
    def take(self, session):
        return itertools.islice(session.micro_batches(), 2)


class GoesOn(PlainLoop):
    """Does not stop when it is told to."""

    def train(self, session):
        session.watch(session.module)
        for batch in session.micro_batches():
            session.module(input_ids=batch.input_ids)
            session.step_ended(torch.tensor(1.0))


class Bigger(PlainLoop):
    def prepare(self, module):
        return torch.nn.ModuleList([Bigrams(), Bigrams()])


def _token_file(path: Path) -> TokenFile:
    rng = random.Random(0)
    documents = [[rng.randrange(1, VOCABULARY) for _ in range(rng.randrange(2, 9))] for _ in range(60)]
    ids = list(itertools.chain(*documents))
    layout = token_file_offsets(len(documents), len(ids))
    content = bytearray(layout.end)
    content[:HEADER_BYTES] = json.dumps({}).encode().ljust(HEADER_BYTES)
    struct.pack_into(f"<{len(ids)}i", content, layout.ids, *ids)
    content[layout.trained : layout.trained + len(ids)] = bytes([1]) * len(ids)
    offsets = [sum(map(len, documents[:i])) for i in range(len(documents) + 1)]
    struct.pack_into(f"<{len(offsets)}q", content, layout.offsets, *offsets)
    path.write_bytes(content)
    return TokenFile(path=str(path), sha256="", documents=len(documents), tokens=len(ids), pad_id=0)


class TaughtClock:
    """Goes on by a second with each micro-batch that is trained, and not otherwise."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class StatesRate(PlainLoop):
    """States `counted` slots for each slot that it trained, over the time that passed while it looked at the clock.
    waits: the share of the time that it sees."""

    def __init__(self, clock: TaughtClock, counted: float = 1.0, waits: float = 1.0) -> None:
        self._clock, self._counted, self._waits = clock, counted, waits
        self._slots = 0

    def ids(self, batch):
        self._slots += batch.input_ids.numel()
        self._clock.now_s += 1.0
        return batch.input_ids

    def own_rate(self) -> dict[str, Any]:
        rate = self._counted * self._slots / (self._waits * self._clock.now_s)
        return {"tokens_per_s": rate, "printed": "", "counts": ""}


def _train(folder: Path, loop: Any, batching: str = "pad", clock: Callable[[], float] = time.monotonic) -> Measurement:
    a = Assignment(
        run_id="r", attempt="a", model="m", model_runtime="m:M", architecture={}, device="cpu", size="1",
        device_runtime="d:D", strategy="none", strategy_runtime="s:S", strategy_options={}, method="full",
        token_file=_token_file(folder / "tokens"), precision="fp32", batching=batching, sequence=12, micro_batch=4,
        global_batch=4, gradient_accumulation=1, data_ranks=1, weights="random", optimizer="adamw", learning_rate=1e-2,
        schedule="constant", clip_norm=0.0, seed=0, epochs=None, steps=STEPS, warmup=0, budget_s=None,
        target_interval=0.0, window_s=1.0, measure_peak=False, breakdown=False, processes=1, threads=1,
        device_options={}, trainer_runtime="t:T",
        **{**VALUES_BEFORE, "trainer": "planted"},
    )  # fmt: skip
    (folder / "plan.json").write_text(a.to_json())
    tokens = MappedTokens(a.token_file)
    torch.manual_seed(a.seed)
    module = Bigrams()
    job = TrainingJob(
        assignment=a,
        place=Place("cpu", 0, 1, 0, 1),
        device=Cpu(),
        strategy=NoStrategy(a),
        model=BigramRuntime(),
        module=module,
        optimizer=torch.optim.AdamW(module.parameters()),
        factor=lambda step: 1.0,
        steps=(
            [tokens.micro_batch(rows, a) for rows in micro_batches]
            for micro_batches in row_packing.make_step_rows(a, tokens.lengths(), 0)
        ),
        recorder=Recorder(str(folder / "records.0.jsonl"), 0, clock),
        clock=clock,
        second=clock,
        is_interrupted=lambda: False,
    )
    trainer_session.train(job, loop, lambda module: None)
    return read_measurement(folder)


def _rules(measurement: Measurement) -> dict[str, str]:
    return {finding.rule: finding.severity for finding in judge_trainer(measurement)}


@pytest.mark.parametrize("batching", ["pad", "bucket"])
def test_a_loop_that_trains_the_same_has_the_tokens_of_the_token_file_and_no_finding(
    tmp_path: Path, batching: str
) -> None:
    found = _train(tmp_path, PlainLoop(), batching)
    tokens = MappedTokens(found.assignment.token_file)
    offsets = list(itertools.accumulate(tokens.lengths(), initial=0))
    documents = TokenDocuments(offsets=offsets, trained=bytes([1]) * offsets[-1])
    assert found.step_count == STEPS
    assert found.counts(0, STEPS) == recount_tokens(documents, found.assignment, 0, STEPS)
    assert judge_trainer(found) == []
    assert check_slots(found) is None
    assert all(bool(step.widths) == (batching == "bucket") for step in found.ranks[0].steps)
    assert [len(step.samples) for step in found.ranks[0].steps] == [4, 4, 0, 0]


@pytest.mark.parametrize(
    ("loop", "rule", "severity"),
    [
        (OtherWeights(), "trains-otherwise", "invalid"),
        (OtherOrder(), "rows-differ", "invalid"),
        (OtherTokens(), "rows-differ", "invalid"),
        (HalfRows(), "rows-differ", "invalid"),
        (SkipsUpdates(), "steps-skipped", "invalid"),
        (DynamicPadding(), "trainer-differs", "note"),
    ],
)
def test_a_loop_that_trains_otherwise_is_found_out(tmp_path: Path, loop: Any, rule: str, severity: str) -> None:
    assert _rules(_train(tmp_path, loop))[rule] == severity


def test_rows_without_their_padding_count_as_they_are(tmp_path: Path) -> None:
    found = _train(tmp_path, DynamicPadding())
    assert "rows-differ" not in _rules(found)
    assert all(found.counts(n, n + 1).slots < 4 * 12 for n in range(STEPS))


def test_a_step_in_which_nothing_passed_the_model_has_no_tokens(tmp_path: Path) -> None:
    found = _train(tmp_path, Silent())
    assert found.counts(0, STEPS) == JobTokens(0, 0, 0)
    assert _rules(found)["steps-skipped"] == "invalid"


@pytest.mark.parametrize(
    ("loop", "words"),
    [(EndsEarly(), "ended by itself after 2 steps"), (Bigger(), "trains 1,024 parameters, the run's model has 512")],
)
def test_a_loop_that_cannot_be_measured_ends_with_its_reason(tmp_path: Path, loop: Any, words: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=words):
        _train(tmp_path, loop)


def test_a_loop_that_does_not_stop_is_stopped(tmp_path: Path) -> None:
    assert _train(tmp_path, GoesOn()).step_count == STEPS


def test_ids_without_padding_are_those_of_their_micro_batch() -> None:
    rows = [[(torch.tensor([5, 6, 7]), torch.tensor([True] * 3))], [(torch.tensor([8]), torch.tensor([True]))]]
    batch = make_batch(rows, 4, 0, False)
    assert trainer_session.match_batch(batch.input_ids, batch) == 8
    assert trainer_session.match_batch(batch.input_ids[:, :3], batch) == 6
    assert trainer_session.match_batch(batch.input_ids[:, :2], batch) is None
    assert trainer_session.match_batch(torch.tensor([[5, 6, 7, 8]]), batch) == 4
    assert trainer_session.match_batch(torch.tensor([[8, 5, 6, 7]]), batch) is None


# 10 s timed of 12 s, half of the slots padding.
SPANS = {
    "timed": CountedSpan(JobTokens(20_000, 10_000, 9_000), 10.0),
    "whole": CountedSpan(JobTokens(22_000, 11_000, 9_900), 12.0),
}


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (1000.0, "content tokens over the timed part"),
        (2010.0, "all slots, padding included over the timed part"),
        (1835.0, "all slots, padding included over all steps, the warm-up included"),
        (4000.0, "content tokens over the timed part, multiplied by 4 ranks"),
        (250.0, "content tokens over the timed part, of one of 4 ranks"),
    ],
)
def test_a_stated_rate_is_explained_by_what_it_counts(stated: float, words: str) -> None:
    found = judge_own_rate(stated, SPANS, 4, 1)
    assert (found.rule, found.severity) == ("trainer-rate", "note")
    assert f"it counts {words} " in found.message


@pytest.mark.parametrize(
    ("counted", "waits", "rule", "words"),
    [
        (1.0, 1.0, "trainer-rate", "it counts all slots, padding included over the timed part ("),
        (4.0, 1.0, "trainer-rate", "padding included over the timed part, multiplied by 4 ranks"),
        (1.0, 0.1, "trainer-rate-denied", "does not wait for the device"),
    ],
)
def test_a_planted_trainer_that_overstates_its_rate_is_found_out(
    tmp_path: Path, counted: float, waits: float, rule: str, words: str
) -> None:
    clock = TaughtClock()
    found = _train(tmp_path, StatesRate(clock, counted, waits), clock=clock)
    rank, steps = found.ranks[0], range(STEPS)
    counts = tuple(found.counts(step, step + 1) for step in steps)
    # Half of the slots and more are padding: a rate of slots is far from one of content.
    assert 1.5 * sum(each.content for each in counts) < sum(each.slots for each in counts)
    timed = TimedPart(rank=rank, edges=tuple(rank.edges), counts=counts, warmup_steps=0, is_settled=True)
    of_four = replace(found, assignment=replace(found.assignment, processes=4)) if counted > 1 else found
    finding = check_own_rate(of_four, timed)
    assert finding is not None
    assert finding.rule == rule
    assert words in finding.message


def test_a_stated_rate_may_be_that_of_the_median_step() -> None:
    """Of padded rows most steps may be slower than the whole: 600, 600 and 1,800 tokens/s are 1,000 in the mean."""
    steps = [CountedSpan(JobTokens(2_000, content, content - 4), 1.0) for content in (600, 600, 1_800)]
    spans = {"timed": CountedSpan(JobTokens(6_000, 3_000, 2_988), 3.0)}
    assert judge_own_rate(600.0, spans, 1, 1).rule == "trainer-rate-denied"
    found = judge_own_rate(600.0, spans, 1, 1, steps)
    assert found.rule == "trainer-rate"
    assert "it counts content tokens of the median step" in found.message


@pytest.mark.parametrize(("stated", "words"), [(50_000.0, "does not wait"), (1300.0, "no count of its tokens")])
def test_a_stated_rate_that_nothing_explains_is_denied(stated: float, words: str) -> None:
    found = judge_own_rate(stated, SPANS, 1, 1)
    assert (found.rule, found.severity) == ("trainer-rate-denied", "suspect")
    assert words in found.message
