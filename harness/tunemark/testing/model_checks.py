"""Judges what the worker measured of a model's runtime against the model's facts, without any I/O.

Tolerances cover the differences of a correct model; the faults looked for differ by far more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunemark.physics import count_parameters, train_flops_per_token
from tunemark.plugin import Model
from tunemark.testing.check import Check, fail_check, judge_check, skip_check

# Relative. The products for rotary angles are left out of the formula: a thousandth of a tiny model's FLOPs. One of ten
# layers counted twice is ten times this tolerance.
FLOPS_TOLERANCE = 0.01
# Nats. Random logits of variance v raise the loss by v/2 above ln(vocabulary); common initialisations give small models
# at most a scale of 1.
INITIAL_LOSS_TOLERANCE = 0.6
# Relative to the largest score, fp32: another order of summation differs by 1e-6, attention across documents by tenths.
PACKING_TOLERANCE = 1e-3

# Problems, and what is said where there are none.
_Judgement = tuple[list[str], str]


def judge_measures(
    model: Model, sequence: int, answers: Mapping[str, Mapping[str, Any]], ended: str, measures: Sequence[str]
) -> list[Check]:
    """One check per measure. answers: the worker's rows by measure. ended: why rows are missing."""
    subject = f"model {model.name}"
    checks = []
    for name in measures:
        row = answers.get(name)
        if row is None:
            why = ended or "it ended without a message"
            checks.append(fail_check(name, subject, f"the worker did not get this far: {why}"))
        elif "failure" in row:
            checks.append(fail_check(name, subject, str(row["failure"])))
        elif "skipped" in row["found"]:
            checks.append(skip_check(name, subject, str(row["found"]["skipped"])))
        else:
            problems, good = _JUDGES[name](model, sequence, row["found"])
            checks.append(judge_check(name, subject, problems, good))
    return checks


def _parameters(model: Model, sequence: int, found: Mapping[str, Any]) -> _Judgement:
    stated = count_parameters(model.architecture).total
    problems = []
    if found["total"] != stated:
        more = found["total"] - stated
        problems.append(f"its facts give {stated:,} parameters, what was built has {found['total']:,} ({more:+,})")
    if found["dtypes"] != [found["wanted_dtype"]]:
        problems.append(f"parameters are {', '.join(found['dtypes'])}, not {found['wanted_dtype']} as requested")
    if found["imported_parent"]:
        problems.append("its runtime imports `tunemark`, which another interpreter may not have")
    is_meta = "meta" in found["devices"]
    good = f"{stated:,} by its facts and as built"
    good += " on torch's meta device; too large to be trained here, so nothing else is checked" if is_meta else ""
    return problems, good


def _flops(model: Model, sequence: int, found: Mapping[str, Any]) -> _Judgement:
    stated, counted = train_flops_per_token(model.architecture, sequence, "full"), found["per_slot"]
    if not stated:
        return ["its facts give no FLOPs at all"], ""
    difference = counted / stated - 1
    words = f"{counted:,.0f} FLOPs per slot were counted, its facts give {stated:,.0f} ({100 * difference:+.2f} %, "
    words += f"limit {100 * FLOPS_TOLERANCE:g} %)"
    return [] if abs(difference) <= FLOPS_TOLERANCE else [words], words


def _initial_loss(model: Model, sequence: int, found: Mapping[str, Any]) -> _Judgement:
    expected, loss = math.log(model.architecture.vocab_size), found["loss"]
    if loss is None:
        return ["the loss of random weights is not finite"], ""
    words = f"{loss:.3f} at random weights, ln({model.architecture.vocab_size}) is {expected:.3f} (limit "
    words += f"±{INITIAL_LOSS_TOLERANCE:g})"
    return [] if abs(loss - expected) <= INITIAL_LOSS_TOLERANCE else [words], words


def _gradients(model: Model, sequence: int, found: Mapping[str, Any]) -> _Judgement:
    problems = []
    if found["frozen"]:
        problems.append(f"frozen, though all parameters are to be trained: {_first_three(found['frozen'])}")
    if found["unreached"]:
        problems.append(f"no gradient reaches {_first_three(found['unreached'])}")
    if found["not_finite"]:
        problems.append(f"the gradient of {_first_three(found['not_finite'])} is not finite")
    return problems, f"a gradient reaches each of {found['tensors']} tensors"


def _alignment(model: Model, sequence: int, found: Mapping[str, Any]) -> _Judgement:
    changed, first = found["changed"], found["first"]
    problems = []
    altered = [name for name, is_kept in found["kept"].items() if not is_kept]
    if found["labels_shifted"] and not found["kept"]["labels"]:
        problems.append("labels are shifted twice: `logits` shifts the batch's labels, and the loss shifts them again")
    elif altered:
        problems.append(f"`logits` changes the batch: {', '.join(altered)}")
    if first is None:
        problems.append(f"no score depends on slot {changed}")
    elif first > changed:
        problems.append(
            f"labels are shifted twice: scores come {first - changed} slot(s) late, as if aligned with labels; "
            "the loss shifts the labels itself"
        )
    elif first < changed:
        problems.append(f"scores of slot {first} depend on slot {changed}: they see what they have to predict")
    return problems, f"the scores of a slot depend on it and on none behind (slot {changed})"


def _packing(model: Model, sequence: int, found: Mapping[str, Any]) -> _Judgement:
    words = f"a document's scores alone and behind another differ by {found['apart']:.2g} of the largest (limit "
    words += f"{PACKING_TOLERANCE:g})"
    remedy = ": attention must stay within batch.document_ids, positions restart as batch.positions say"
    return [] if found["apart"] <= PACKING_TOLERANCE else [words + remedy], words


def _determinism(model: Model, sequence: int, found: Mapping[str, Any]) -> _Judgement:
    first, second = ([float.fromhex(x) for x in run] for run in found["runs"])
    words = f"two builds of one seed have losses {first[0]:.9g} and {second[0]:.9g} and gradient norms {first[1]:.9g} "
    words += f"and {second[1]:.9g}: something is drawn that torch.manual_seed does not set"
    good = "two builds of one seed have the same loss and gradient norm, to the bit"
    return [] if first == second else [words], good


def _learning(model: Model, sequence: int, found: Mapping[str, Any]) -> _Judgement:
    losses = found["losses"]
    if None in losses:
        return ["a loss is not finite"], ""
    words = f"{len(losses)} steps on one batch take the loss from {losses[0]:.4g} to {losses[-1]:.4g}"
    return [] if losses[-1] < losses[0] else [words], words


def _tokens(model: Model, sequence: int, found: Mapping[str, Any]) -> _Judgement:
    names = ("slots", "content", "trained")
    counted, expected = found["counted"], found["expected"]
    wrong = [f"{c} {n} tokens for {e}" for n, c, e in zip(names, counted, expected, strict=True) if c != e]
    words = f"with this runtime the worker counts {', '.join(wrong)}"
    if counted[1] == expected[0]:
        words += ": padding is counted as content"
    return [words] if wrong else [], f"the worker counts {expected[1]} content tokens in {expected[0]} slots"


def _processes(model: Model, sequence: int, found: Mapping[str, Any]) -> _Judgement:
    return _judge_orphans(found["left"], "its runtime built and trained the model")


def check_orphans(name: str, subject: str, left: Sequence[Sequence[Any]], after: str) -> Check:
    """Judge which processes are still running. left: (pid, command) of each."""
    return judge_check(name, subject, *_judge_orphans(left, after))


def _judge_orphans(left: Sequence[Sequence[Any]], after: str) -> _Judgement:
    words = _first_three([f"{command} (pid {pid})" for pid, command in left])
    problems = [f"processes are left after {after}: {words}"] if left else []
    return problems, f"no process is left after {after}"


def _first_three(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


_JUDGES = {
    "parameters": _parameters,
    "flops": _flops,
    "initial-loss": _initial_loss,
    "gradients": _gradients,
    "alignment": _alignment,
    "packing": _packing,
    "determinism": _determinism,
    "learning": _learning,
    "tokens": _tokens,
    "processes": _processes,
}

MEASURES = tuple(_JUDGES)
