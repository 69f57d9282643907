"""Checks what a plugin states for consistency and that the parent can load it; uses no worker and no device."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemark.data import load_tokenizer, prepare_data, read_token_file
from tunemark.errors import TunemarkError, did_you_mean
from tunemark.experiment.settings import SETTINGS
from tunemark.physics import count_parameters, train_flops_per_token
from tunemark.plugin import (
    Accelerator,
    Catalog,
    Dataset,
    Device,
    Exporter,
    Format,
    Importer,
    Launcher,
    Model,
    Monitor,
    PluginContribution,
    Strategy,
    Trainer,
)
from tunemark.plugin.catalog import load_object
from tunemark.plugin.claims import LogLine
from tunemark.plugin.protocols import CAPABILITIES, DatasetSource, Tokenizer
from tunemark.testing.check import Check, fail_check, judge_check, pass_check, skip_check
from tunemark_worker.capabilities import find_protocol_problems
from tunemark_worker.contract import split_runtime

# Characters of a name. On the command line, commas separate values, colons options and pluses strategies.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TEXTS = (
    "a",
    "How much is 2 + 3?\n",
    "Zwölf Boxkämpfer jagen Eva quer über den Sylter Deich. 数を数える",
    " ",
    "x = [1, 2]\n",
)
# Lines that hold no figure of a training run.
_UNRELATED_LINES = ("", "hello", "Zwölf Boxkämpfer", "{", '{"a": [1, null]}', "a,b\tc;;", "# ---", "x" * 5000)
# Number of documents read from a dataset: enough to detect padding, few enough to be quick.
_EXAMPLES = 64


def check_facts(offer: PluginContribution, catalog: Catalog, options: Mapping[str, str]) -> list[Check]:
    """All checks of one offer (a model, a dataset, ...). options: with which a dataset is opened."""
    subject = subject_of(offer)
    problems = []
    if not _NAME.fullmatch(offer.answer.name):
        problems.append(f"the name {offer.answer.name!r} cannot be used on a command line: only letters, digits, . _ -")
    if offer.is_taken:
        claimants = catalog.claimants(offer.hook, offer.name)
        words = f"the name {offer.name!r} is taken: {', '.join(claimants)} claim it, so none of them has it"
        checks = [fail_check("name", subject, "; ".join([words, *problems]))]
    else:
        checks = [
            judge_check("name", subject, problems, "it is valid on a command line, and no other plugin claims it")
        ]
    answer = offer.answer
    if isinstance(answer, Model):
        return [*checks, _check_model(answer, subject), *_check_tokenizer(answer, subject)]
    if isinstance(answer, Dataset):
        return [*checks, *_check_dataset(answer, subject, options)]
    if isinstance(answer, Strategy):
        return [*checks, _check_strategy(answer, subject, catalog)]
    if isinstance(answer, Trainer):
        return [*checks, _check_trainer(answer, subject)]
    if isinstance(answer, (Exporter, Format, Importer, Launcher, Monitor)):
        named = _loader_names(answer)
        problems = _find_unloadable(named)
        good = f"{', '.join(named)} can be loaded"
        if isinstance(answer, Importer) and not problems:
            problems, good = _find_false_claims(answer), f"{good}, and finds no claim in unrelated text"
        return [*checks, judge_check("facts", subject, problems, good)]
    return [*checks, _check_device(answer, subject, catalog)]


def subject_of(offer: PluginContribution) -> str:
    kinds = {"tunemark_strategies": "strategy"}
    return f"{kinds.get(offer.hook, offer.hook.removeprefix('tunemark_').removesuffix('s'))} {offer.name}"


def _loader_names(answer: Exporter | Format | Importer | Launcher | Monitor) -> list[str]:
    if isinstance(answer, (Launcher, Monitor)):
        return [answer.loader]
    if isinstance(answer, Exporter):
        return [answer.export]
    if isinstance(answer, Format):
        return [answer.render]
    return [name for name in (answer.log, answer.document, answer.is_document) if name]


def _find_unloadable(names: Sequence[str]) -> list[str]:
    problems = []
    for name in names:
        try:
            if not callable(load_object(name)):
                problems.append(f"{name} is not callable")
        except Exception as error:  # third-party code
            problems.append(f"{name} cannot be loaded: {error}")
    return problems


def _find_false_claims(importer: Importer) -> list[str]:
    """Problems if the importer raises on, or finds a claim in, text that no tool prints."""
    try:
        if importer.is_document is not None:
            taken = [text for text in _UNRELATED_LINES if load_object(importer.is_document)(text)]
            return [f"it recognises {taken[0]!r} as its document"] if taken else []
        reader = load_object(str(importer.log))()
        for number, text in enumerate(_UNRELATED_LINES, 1):
            reader.read(LogLine(number, text))
        claims = list(reader.claims())
        return [f"it finds {len(claims)} claims in lines without figures"] if claims else []
    except Exception as error:  # third-party code
        return [f"it raises on unrelated lines: {type(error).__name__}: {error}"]


def _find_runtime_problems(runtime: str) -> list[str]:
    """Problems with finding a runtime's module, which is not imported: that would load torch into this process."""
    try:
        module, _ = split_runtime(runtime)
    except ValueError as error:
        return [str(error)]
    top = module.partition(".")[0]
    try:
        found = importlib.util.find_spec(module)
    except Exception as error:  # find_spec imports the parent package
        return [f"the runtime's package {top!r} cannot be imported: {type(error).__name__}: {error}"]
    if found is None:
        return [f"there is no module {module!r}, which should hold its runtime"]
    if "." not in module:
        return [
            f"the runtime {module!r} must be a module inside a package, because the package is copied to the worker"
        ]
    return []


def _check_model(model: Model, subject: str) -> Check:
    problems = [] if model.runtime is None else _find_runtime_problems(model.runtime)
    a = model.architecture
    small = [n for n in ("vocab_size", "hidden_size", "max_position_embeddings") if getattr(a, n) < 1]
    problems += [f"{name} is {getattr(a, name)}" for name in small]
    if a.num_key_value_heads < 1 or a.num_attention_heads % a.num_key_value_heads:
        problems.append(f"{a.num_key_value_heads} key-value heads do not divide {a.num_attention_heads} heads")
    if model.runtime is not None and "torch" not in model.requires:
        problems.append("`requires` does not name torch, which its runtime needs")
    if not model.description:
        problems.append("it has no description for `tunemark list models`")
    if problems:
        return fail_check("facts", subject, "; ".join(problems))
    sequence = min(2048, a.max_position_embeddings)
    flops = train_flops_per_token(a, sequence)
    words = f"{count_parameters(a).total:,} parameters, {flops / 1e9:.4g} GFLOP per token at {sequence}"
    return pass_check("facts", subject, words + ("" if model.runtime else "; facts only, it has no runtime"))


def _check_trainer(trainer: Trainer, subject: str) -> Check:
    if trainer.absent:
        problems = ["it has a runtime, and says why it has none"] if trainer.runtime else []
        return judge_check("facts", subject, problems, f"it has no runtime: {trainer.absent}")
    problems = _find_runtime_problems(trainer.runtime)
    known = [each.name for each in SETTINGS]
    problems += [f"it honours {name!r}: {did_you_mean(name, known)}" for name in trainer.honours if name not in known]
    problems += [f"it has no option {name!r}, which is to name a file" for name in trainer.file_options
                 if name not in trainer.options]  # fmt: skip
    if "torch" not in trainer.requires:
        problems.append("`requires` does not name torch, which its runtime needs")
    problems += [f"it has no {name} for `tunemark list trainers`" for name in ("description", "license")
                 if not getattr(trainer, name)]  # fmt: skip
    words = f"it takes {', '.join(trainer.honours) or 'no setting but those that the worker carries out'}"
    return judge_check("facts", subject, problems, words)


def _check_tokenizer(model: Model, subject: str) -> list[Check]:
    if model.tokenizer is None:
        return []
    try:
        tokenizer = load_tokenizer(model.tokenizer)
        vocabulary = model.architecture.vocab_size
        ids = tokenizer.encode(_TEXTS)
        problems = [f"encode gave {len(ids)} lists for {len(_TEXTS)} texts"] if len(ids) != len(_TEXTS) else []
        alone = [tokenizer.encode([text])[0] for text in _TEXTS]
        longest = max(map(len, alone))
        if ids != alone:
            padded = all(len(each) == longest for each in ids)
            words = "padding is counted as content: " if padded else ""
            problems.append(f"{words}the ids of a text depend on the texts that are encoded with it")
        pads = [t for t, each in zip(_TEXTS, alone, strict=True) if each[-2:] == [tokenizer.pad_id] * 2]
        if pads:
            problems.append(f"padding is counted as content: the ids of {pads[0]!r} end in pad_id {tokenizer.pad_id}")
        special = {n: getattr(tokenizer, n) for n in ("bos_id", "eos_id", "pad_id")}
        every = [*itertools.chain(*ids), *(v for v in special.values() if v is not None)]
        outside = sorted({i for i in every if not 0 <= i < vocabulary})
        if outside:
            problems.append(f"ids {outside[:3]} lie outside the model's vocabulary of {vocabulary}")
        if tokenizer.vocab_size > vocabulary:
            problems.append(f"it has {tokenizer.vocab_size} ids, the model {vocabulary}")
        problems += _find_end_problems(tokenizer, alone)
        problems += _find_call_problems(tokenizer, Tokenizer)
        if tokenizer.fingerprint() != load_tokenizer(model.tokenizer).fingerprint():
            problems.append("its fingerprint changes each time, so prepared tokens are never reused")
    except Exception as error:  # third-party code
        return [_end_check("tokenizer", subject, error, f"{model.tokenizer.loader}: ")]
    return [
        judge_check("tokenizer", subject, problems, f"{model.tokenizer.name}: {len(_TEXTS)} texts, alone and together")
    ]


def _end_check(name: str, subject: str, error: Exception, where: str = "") -> Check:
    """Skip a check that cannot be done here, and fail one in which a plugin's code raised. where: the code."""
    if isinstance(error, TunemarkError):
        return skip_check(name, subject, " ".join(error.what.split()))
    return fail_check(name, subject, f"{where}{type(error).__name__}: {error}")


def _find_end_problems(tokenizer: Any, alone: Sequence[Sequence[int]]) -> list[str]:
    """Problems of encode_with_ends: its ids must equal those of encode, its ends rise to the length of the text."""
    for text, (ids, ends), expected in zip(_TEXTS, tokenizer.encode_with_ends(_TEXTS), alone, strict=True):
        if list(ids) != list(expected):
            return [f"encode_with_ends gives other ids than encode for {text!r}"]
        if len(ends) != len(ids) or list(ends) != sorted(ends) or (ends and ends[-1] != len(text)):
            return [f"the ends of {text!r} are {list(ends)[:8]}: one for each id, rising to {len(text)}"]
    return []


def _check_dataset(dataset: Dataset, subject: str, options: Mapping[str, str]) -> list[Check]:
    try:
        source = load_object(dataset.loader)(options, 1000)
        first = list(itertools.islice(source.examples(), _EXAMPLES))
        again = list(itertools.islice(load_object(dataset.loader)(options, 1000).examples(), _EXAMPLES))
        fingerprints = {source.fingerprint(), load_object(dataset.loader)(options, 1000).fingerprint()}
        problems = []
        if not first:
            problems.append("it has no examples")
        if first != again:
            problems.append("its examples differ each time")
        if len(fingerprints) > 1:
            problems.append("its fingerprint changes each time, so prepared tokens are never reused")
        pieces = [piece for example in first for piece in example.pieces]
        if dataset.is_chat != all(example.messages for example in first) and first:
            problems.append("`is_chat` must be true exactly if the examples are messages")
        roles = sorted({p.role for p in pieces} - set(dataset.roles))
        if roles:
            problems.append(f"pieces are {', '.join(roles)}, which `roles` does not name")
        texts = [p for p in pieces if p.text is not None]
        if dataset.needs_tokenizer != bool(texts) and pieces:
            problems.append("`needs_tokenizer` must be true exactly if the pieces are text")
        outside = [i for p in pieces for i in p.ids or () if not 0 <= i < 1000]
        if outside:
            problems.append(f"ids such as {outside[0]} lie outside the given vocabulary of 1000")
        problems += _find_padding(first)
        problems += _find_call_problems(source, DatasetSource)
        facts = source.facts()
        if not isinstance(facts, Mapping):
            problems.append(f"facts() returned {facts!r}")
    except Exception as error:  # third-party code
        return [_end_check("facts", subject, error, f"{dataset.loader}: ")]
    return [judge_check("facts", subject, problems, f"{len(first)} examples were read twice and are the same")]


def _find_padding(examples: Sequence[Any]) -> list[str]:
    """A problem if all documents have the same length and most end in a run of the same id: they are padded."""
    rows = [[i for p in e.pieces for i in p.ids or ()] for e in examples]
    rows = [row for row in rows if len(row) > 3]
    if len(rows) < 8 or len({len(row) for row in rows}) > 1:
        return []
    ends = [row[-1] for row in rows if row[-1] == row[-2] == row[-3]]
    if len(ends) > len(rows) / 2 and len(set(ends)) == 1:
        words = (
            f"padding is counted as content: {len(ends)} of {len(rows)} documents have {len(rows[0])} ids and end in "
        )
        return [words + f"runs of {ends[0]}; give unpadded documents, the worker pads"]
    return []


def _check_strategy(strategy: Strategy, subject: str, catalog: Catalog) -> Check:
    problems = _find_runtime_problems(strategy.runtime)
    devices = catalog.devices()
    problems += [f"there is no device {name!r}, which it names" for name in strategy.devices if name not in devices]
    for processes in (1, 2, 8):
        try:
            ranks = strategy.data_ranks(processes)
        except Exception as error:  # third-party code
            problems.append(f"data_ranks({processes}): {type(error).__name__}: {error}")
            break
        if not isinstance(ranks, int) or ranks < 1 or processes % ranks:
            problems.append(f"data_ranks({processes}) is {ranks!r}, which does not divide {processes}")
            break
    return judge_check("facts", subject, problems, "its runtime exists, and data ranks divide processes")


def _check_device(device: Device, subject: str, catalog: Catalog) -> Check:
    problems = [*_find_runtime_problems(device.runtime), *_find_call_problems(device, Device)]
    try:
        sizes = list(device.accelerators())
        names = [a.name for a in sizes]
        if len(set(names)) < len(names):
            problems.append(f"sizes have the same name: {', '.join(names)}")
        for a in sizes:
            problems += _find_accelerator_problems(a, device)
        if sizes and device.accelerator(device.default_size()) is None:
            problems.append(f"its default size {device.default_size()!r} is unknown to it")
        if device.accelerator("no such size") is not None:
            problems.append("it accepts any text as a size")
        none = None
        with contextlib.suppress(TunemarkError):
            none = catalog.strategy("none", device.name)
        if sizes and none is not None:
            launch = device.launch(sizes[0], none)
            if launch.processes < 1 or launch.threads < 1:
                problems.append(f"launch has {launch.processes} processes of {launch.threads} threads")
    except Exception as error:  # third-party code
        problems.append(f"{type(error).__name__}: {' '.join(str(error).split())}")
        sizes = []
    shown = ", ".join(a.name for a in sizes[:8]) or "none on this machine"
    return judge_check("facts", subject, problems, f"sizes: {shown}")


def _find_accelerator_problems(a: Accelerator, device: Device) -> list[str]:
    problems = []
    if a.peak_flops and not a.source:
        problems.append(f"size {a.name} states a peak without its source")
    for what, value in (("chips", a.chips), ("memory_bytes", a.memory_bytes), *a.peak_flops.items()):
        if value is not None and value <= 0:
            problems.append(f"size {a.name} has {what} {value}; use None for unknown")
    if device.accelerator(a.name) is None:
        problems.append(f"it offers size {a.name!r}, but accelerator() does not find it")
    return problems


def _find_call_problems(found: object, protocol: type) -> list[str]:
    """Methods of a protocol, or of one of its capabilities, that cannot be called as tunemark calls them."""
    return find_protocol_problems(found, protocol, CAPABILITIES[protocol])


def check_recount(dataset: Dataset, catalog: Catalog, options: Mapping[str, str]) -> Check:
    """Check that the worker's token file holds exactly the tokens of the examples."""
    subject = f"dataset {dataset.name}"
    if dataset.is_chat:
        return skip_check("recount", subject, "its text depends on each model's chat template")
    try:
        model = _smallest_vocabulary(dataset, catalog)
        if model is None:
            return skip_check("recount", subject, "no model with a tokenizer is installed")
        tokens = read_token_file(Path(prepare_data(dataset, options, model, "all").token_file.path))
        source = load_object(dataset.loader)(options, model.architecture.vocab_size)
        examples = list(itertools.islice(source.examples(), _EXAMPLES))
        tokenizer = load_tokenizer(model.tokenizer) if dataset.needs_tokenizer and model.tokenizer else None
        expected = [_encode_example(example, tokenizer) for example in examples]
    except Exception as error:  # third-party code
        return _end_check("recount", subject, error)
    offsets = [int(n) for n in tokens.offsets[: len(expected) + 1]]
    found = [[int(i) for i in tokens.ids[a:b]] for a, b in itertools.pairwise(offsets)]
    wrong = [n for n, (ours, theirs) in enumerate(zip(expected, found, strict=True)) if ours != theirs]
    if wrong:
        n = wrong[0]
        words = f"document {n + 1} has {len(found[n])} tokens in the token file and {len(expected[n])} in the examples"
        return fail_check("recount", subject, f"{len(wrong)} of {len(found)} documents differ: {words}")
    return pass_check("recount", subject, f"{sum(map(len, found))} tokens of {len(found)} documents, counted twice")


def _smallest_vocabulary(dataset: Dataset, catalog: Catalog) -> Model | None:
    """A model to prepare a dataset for: the one with the smallest vocabulary, whose tokenizer is cheapest."""
    models = [m for m in catalog.models().values() if m.tokenizer is not None or not dataset.needs_tokenizer]
    return min(models, key=lambda m: (m.architecture.vocab_size, m.name), default=None)


def _encode_example(example: Any, tokenizer: Any) -> list[int]:
    if tokenizer is None:
        return [i for piece in example.pieces for i in piece.ids or ()]
    (ids,) = tokenizer.encode(["".join(piece.text or "" for piece in example.pieces)])
    ends = [[i] if i is not None else [] for i in (tokenizer.bos_id, tokenizer.eos_id)]
    return [*ends[0], *ids, *ends[1]]
