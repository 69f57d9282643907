"""What a plugin states, held against itself and against what the parent can load: no worker, no device is touched."""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemark.data import open_tokenizer, prepare, read_tokens
from tunemark.errors import TunemarkError
from tunemark.physics import parameters, train_flops_per_token
from tunemark.plugin import (
    Accelerator,
    Catalog,
    Dataset,
    Device,
    Format,
    Importer,
    Launcher,
    Model,
    Monitor,
    Offer,
    Strategy,
)
from tunemark.plugin.catalog import load
from tunemark.plugin.claims import Line
from tunemark.testing.check import Check, failed, judged, passed, skipped
from tunemark_worker.contract import split_runtime

# What a name may hold: commas separate values on the command line, colons options, pluses products.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TEXTS = (
    "a",
    "How much is 2 + 3?\n",
    "Zwölf Boxkämpfer jagen Eva quer über den Sylter Deich. 数を数える",
    " ",
    "x = [1, 2]\n",
)
# Lines that state no figure of a training.
_NONSENSE = ("", "hello", "Zwölf Boxkämpfer", "{", '{"a": [1, null]}', "a,b\tc;;", "# ---", "x" * 5000)
# Documents that are read of a dataset: enough to see padding, few enough to take no time.
_EXAMPLES = 64


def facts(offer: Offer, catalog: Catalog, options: Mapping[str, str]) -> list[Check]:
    """All checks of one thing that is offered; a dataset is opened with the options."""
    subject = subject_of(offer)
    problems = []
    if not _NAME.fullmatch(offer.answer.name):
        problems.append(f"the name {offer.answer.name!r} cannot be written on a command line: letters, digits, . _ -")
    if offer.is_taken:
        claimants = catalog.claimants(offer.hook, offer.name)
        words = f"the name {offer.name!r} is taken: {', '.join(claimants)} claim it, so that none of them has it"
        checks = [failed("name", subject, "; ".join([words, *problems]))]
    else:
        checks = [judged("name", subject, problems, "it can be written, and nobody else claims it")]
    answer = offer.answer
    if isinstance(answer, Model):
        return [*checks, _model(answer, subject), *_tokenizer(answer, subject)]
    if isinstance(answer, Dataset):
        return [*checks, *_dataset(answer, subject, options)]
    if isinstance(answer, Strategy):
        return [*checks, _strategy(answer, subject, catalog)]
    if isinstance(answer, (Format, Importer, Launcher, Monitor)):
        named = [answer.render] if isinstance(answer, Format) else _loaders(answer)
        problems = _loadable(named)
        good = f"{', '.join(named)} can be loaded"
        if isinstance(answer, Importer) and not problems:
            problems, good = _claims_nonsense(answer), f"{good}, and makes nothing of what is not its own"
        return [*checks, judged("facts", subject, problems, good)]
    return [*checks, _device(answer, subject, catalog)]


def subject_of(offer: Offer) -> str:
    kinds = {"tunemark_strategies": "strategy"}
    return f"{kinds.get(offer.hook, offer.hook.removeprefix('tunemark_').removesuffix('s'))} {offer.name}"


def _loaders(answer: Importer | Launcher | Monitor) -> list[str]:
    if isinstance(answer, (Launcher, Monitor)):
        return [answer.loader]
    return [name for name in (answer.log, answer.document, answer.is_document) if name]


def _loadable(names: Sequence[str]) -> list[str]:
    problems = []
    for name in names:
        try:
            if not callable(load(name)):
                problems.append(f"{name} is not callable")
        except Exception as error:  # a stranger's module is on the other side
            problems.append(f"{name} cannot be loaded: {error}")
    return problems


def _claims_nonsense(importer: Importer) -> list[str]:
    """Whether a reader of logs raises on, or sees a claim in, lines that no tool prints; the same of documents."""
    try:
        if importer.is_document is not None:
            taken = [text for text in _NONSENSE if load(importer.is_document)(text)]
            return [f"it takes {taken[0]!r} for a document of its own"] if taken else []
        reader = load(str(importer.log))()
        for number, text in enumerate(_NONSENSE, 1):
            reader.read(Line(number, text))
        claims = list(reader.claims())
        return [f"it sees {len(claims)} claims in lines that state no figure"] if claims else []
    except Exception as error:  # a stranger's reader is on the other side
        return [f"it raises on lines that are not its own: {type(error).__name__}: {error}"]


def _findable(runtime: str) -> list[str]:
    """Whether a runtime's module is there, without importing it: that would bring torch into this process."""
    try:
        module, _ = split_runtime(runtime)
    except ValueError as error:
        return [str(error)]
    top = module.partition(".")[0]
    try:
        found = importlib.util.find_spec(module)
    except Exception as error:  # the parent package is imported for it
        return [f"the runtime's package {top!r} cannot be imported: {type(error).__name__}: {error}"]
    if found is None:
        return [f"there is no module {module!r}, which its runtime is said to be in"]
    if "." not in module:
        return [
            f"the runtime {module!r} must be a module inside a package, because the package is copied to the worker"
        ]
    return []


def _model(model: Model, subject: str) -> Check:
    problems = [] if model.runtime is None else _findable(model.runtime)
    a = model.architecture
    small = [n for n in ("vocab_size", "hidden_size", "max_position_embeddings") if getattr(a, n) < 1]
    problems += [f"{name} is {getattr(a, name)}" for name in small]
    if a.num_key_value_heads < 1 or a.num_attention_heads % a.num_key_value_heads:
        problems.append(f"{a.num_key_value_heads} key-value heads do not divide {a.num_attention_heads} heads")
    if model.runtime is not None and "torch" not in model.requires:
        problems.append("`requires` does not name torch, which its runtime needs")
    if not model.description:
        problems.append("it has no description, and `tunemark list models` has nothing to show")
    if problems:
        return failed("facts", subject, "; ".join(problems))
    sequence = min(2048, a.max_position_embeddings)
    flops = train_flops_per_token(a, sequence)
    words = f"{parameters(a).total:,} parameters, {flops / 1e9:.4g} GFLOP per token at {sequence}"
    return passed("facts", subject, words + ("" if model.runtime else "; facts only, it has no runtime"))


def _tokenizer(model: Model, subject: str) -> list[Check]:
    if model.tokenizer is None:
        return []
    try:
        tokenizer = open_tokenizer(model.tokenizer)
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
        problems += _ends(tokenizer, alone)
        if tokenizer.fingerprint() != open_tokenizer(model.tokenizer).fingerprint():
            problems.append("its fingerprint is another each time, so that prepared tokens are never found again")
    except TunemarkError as error:
        return [skipped("tokenizer", subject, " ".join(error.what.split()))]
    except Exception as error:  # a stranger's tokenizer is on the other side
        return [failed("tokenizer", subject, f"{model.tokenizer.loader}: {type(error).__name__}: {error}")]
    return [judged("tokenizer", subject, problems, f"{model.tokenizer.name}: {len(_TEXTS)} texts, alone and together")]


def _ends(tokenizer: Any, alone: Sequence[Sequence[int]]) -> list[str]:
    """encode_with_ends has the same ids, and ends that rise to the text's last character."""
    for text, (ids, ends), expected in zip(_TEXTS, tokenizer.encode_with_ends(_TEXTS), alone, strict=True):
        if list(ids) != list(expected):
            return [f"encode_with_ends gives other ids than encode for {text!r}"]
        if len(ends) != len(ids) or list(ends) != sorted(ends) or (ends and ends[-1] != len(text)):
            return [f"the ends of {text!r} are {list(ends)[:8]}: one for each id, rising to {len(text)}"]
    return []


def _dataset(dataset: Dataset, subject: str, options: Mapping[str, str]) -> list[Check]:
    try:
        source = load(dataset.loader)(options, 1000)
        first = list(itertools.islice(source.examples(), _EXAMPLES))
        again = list(itertools.islice(load(dataset.loader)(options, 1000).examples(), _EXAMPLES))
        fingerprints = {source.fingerprint(), load(dataset.loader)(options, 1000).fingerprint()}
        problems = []
        if not first:
            problems.append("it has no examples")
        if first != again:
            problems.append("its examples are others each time")
        if len(fingerprints) > 1:
            problems.append("its fingerprint is another each time, so that prepared tokens are never found again")
        pieces = [piece for example in first for piece in example.pieces]
        if dataset.is_chat != all(example.messages for example in first) and first:
            problems.append("`is_chat` is said of examples that are messages, and of nothing else")
        roles = sorted({p.role for p in pieces} - set(dataset.roles))
        if roles:
            problems.append(f"pieces are {', '.join(roles)}, which `roles` does not name")
        texts = [p for p in pieces if p.text is not None]
        if dataset.needs_tokenizer != bool(texts) and pieces:
            problems.append("`needs_tokenizer` is said of text, and of nothing else")
        outside = [i for p in pieces for i in p.ids or () if not 0 <= i < 1000]
        if outside:
            problems.append(f"ids such as {outside[0]} lie outside a vocabulary of 1000 that it was given")
        problems += _padded(first)
        facts = source.facts()
        if not isinstance(facts, Mapping):
            problems.append(f"facts() returned {facts!r}")
    except TunemarkError as error:
        return [skipped("facts", subject, " ".join(error.what.split()))]
    except Exception as error:  # a stranger's dataset is on the other side
        return [failed("facts", subject, f"{dataset.loader}: {type(error).__name__}: {error}")]
    return [judged("facts", subject, problems, f"{len(first)} examples were read twice, the same each time")]


def _padded(examples: Sequence[Any]) -> list[str]:
    """Documents of ids that all end in the same ids and are all of one length were padded before they were given."""
    rows = [[i for p in e.pieces for i in p.ids or ()] for e in examples]
    rows = [row for row in rows if len(row) > 3]
    if len(rows) < 8 or len({len(row) for row in rows}) > 1:
        return []
    ends = [row[-1] for row in rows if row[-1] == row[-2] == row[-3]]
    if len(ends) > len(rows) / 2 and len(set(ends)) == 1:
        words = (
            f"padding is counted as content: {len(ends)} of {len(rows)} documents have {len(rows[0])} ids and end in "
        )
        return [words + f"runs of {ends[0]}; give documents as long as they are, the worker pads"]
    return []


def _strategy(strategy: Strategy, subject: str, catalog: Catalog) -> Check:
    problems = _findable(strategy.runtime)
    devices = catalog.devices()
    problems += [
        f"there is no device {name!r}, which it is said to be for" for name in strategy.devices if name not in devices
    ]
    for processes in (1, 2, 8):
        try:
            ranks = strategy.data_ranks(processes)
        except Exception as error:  # a stranger's function is on the other side
            problems.append(f"data_ranks({processes}): {type(error).__name__}: {error}")
            break
        if not isinstance(ranks, int) or ranks < 1 or processes % ranks:
            problems.append(f"data_ranks({processes}) is {ranks!r}, which does not divide {processes}")
            break
    return judged("facts", subject, problems, "its runtime is there, and its data ranks divide processes")


def _device(device: Device, subject: str, catalog: Catalog) -> Check:
    problems = _findable(device.runtime)
    try:
        sizes = list(device.accelerators())
        names = [a.name for a in sizes]
        if len(set(names)) < len(names):
            problems.append(f"sizes are named twice: {', '.join(names)}")
        for a in sizes:
            problems += _accelerator(a, device)
        if sizes and device.accelerator(device.default_size()) is None:
            problems.append(f"its default size {device.default_size()!r} is none that it knows")
        if device.accelerator("no such size") is not None:
            problems.append("it takes any text for a size")
        none = _try(lambda: catalog.strategy("none", device.name))
        if sizes and none is not None and not isinstance(none, Exception):
            launch = device.launch(sizes[0], none)
            if launch.processes < 1 or launch.threads < 1:
                problems.append(f"launch has {launch.processes} processes of {launch.threads} threads")
    except Exception as error:  # a stranger's device is on the other side
        problems.append(f"{type(error).__name__}: {' '.join(str(error).split())}")
        sizes = []
    shown = ", ".join(a.name for a in sizes[:8]) or "none on this machine"
    return judged("facts", subject, problems, f"sizes: {shown}")


def _accelerator(a: Accelerator, device: Device) -> list[str]:
    problems = []
    if a.peak_flops and not a.source:
        problems.append(f"size {a.name} states a peak without its source")
    for what, value in (("chips", a.chips), ("memory_bytes", a.memory_bytes), *a.peak_flops.items()):
        if value is not None and value <= 0:
            problems.append(f"size {a.name} has {what} {value}: unknown is None")
    if device.accelerator(a.name) is None:
        problems.append(f"it offers size {a.name!r} and does not know it")
    return problems


def _try(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except TunemarkError as error:
        return error


def recount(dataset: Dataset, catalog: Catalog, options: Mapping[str, str]) -> Check:
    """Whether the token file that a worker reads has the tokens that the examples have, one by one."""
    subject = f"dataset {dataset.name}"
    if dataset.is_chat:
        return skipped("recount", subject, "its text is made by each model's own chat template")
    try:
        model = _reader(dataset, catalog)
        if model is None:
            return skipped("recount", subject, "no model with a tokenizer is installed to read it with")
        tokens = read_tokens(Path(prepare(dataset, options, model, "all").token_file.path))
        source = load(dataset.loader)(options, model.architecture.vocab_size)
        examples = list(itertools.islice(source.examples(), _EXAMPLES))
        tokenizer = open_tokenizer(model.tokenizer) if dataset.needs_tokenizer and model.tokenizer else None
        expected = [_ids(example, tokenizer) for example in examples]
    except TunemarkError as error:
        return skipped("recount", subject, " ".join(error.what.split()))
    except Exception as error:  # a stranger's dataset is on the other side
        return failed("recount", subject, f"{type(error).__name__}: {error}")
    offsets = [int(n) for n in tokens.offsets[: len(expected) + 1]]
    found = [[int(i) for i in tokens.ids[a:b]] for a, b in itertools.pairwise(offsets)]
    wrong = [n for n, (ours, theirs) in enumerate(zip(expected, found, strict=True)) if ours != theirs]
    if wrong:
        n = wrong[0]
        words = f"document {n + 1} has {len(found[n])} tokens in the token file and {len(expected[n])} by itself"
        return failed("recount", subject, f"{len(wrong)} of {len(found)} documents differ: {words}")
    return passed("recount", subject, f"{sum(map(len, found))} tokens of {len(found)} documents, counted twice")


def _reader(dataset: Dataset, catalog: Catalog) -> Model | None:
    """A model to read a dataset for: the one of the smallest vocabulary, whose tokenizer is the cheapest."""
    models = [m for m in catalog.models().values() if m.tokenizer is not None or not dataset.needs_tokenizer]
    return min(models, key=lambda m: (m.architecture.vocab_size, m.name), default=None)


def _ids(example: Any, tokenizer: Any) -> list[int]:
    if tokenizer is None:
        return [i for piece in example.pieces for i in piece.ids or ()]
    (ids,) = tokenizer.encode(["".join(piece.text or "" for piece in example.pieces)])
    ends = [[i] if i is not None else [] for i in (tokenizer.bos_id, tokenizer.eos_id)]
    return [*ends[0], *ids, *ends[1]]
