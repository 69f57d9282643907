"""The facts that `tunemark audit` takes from its options: what a source leaves out, or states wrongly."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tunemark.errors import BadExperiment
from tunemark.plugin import Catalog

if TYPE_CHECKING:
    from tunemark.analysis import UserFacts
    from tunemark.plugin.descriptors import Architecture

_DIMENSIONS = ("layers", "hidden", "intermediate", "heads", "kv_heads", "vocab")


def add_fact_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that state a fact."""
    parser.add_argument("--model", help="model that was trained (see `tunemark list models`)")
    parser.add_argument("--device", help="chip, by its product name: MI250, H100-SXM")
    parser.add_argument("--count", type=_parse_positive, help="number of devices, as packages are sold")
    parser.add_argument("--batch", type=_parse_positive, help="global batch: sequences per step of the whole job")
    parser.add_argument("--sequence", type=_parse_positive, help="sequence length, tokens (padding included)")
    parser.add_argument("--precision", help="precision of the matrix products: bf16, fp16, fp8, ...")
    parser.add_argument("--method", help="fine-tuning method: full or lora")
    parser.add_argument("--scope", choices=("job", "device"), help="of what the printed rates are")
    parser.add_argument("--padding", type=_parse_fraction, help="fraction of slots that are padding, such as 0.39")
    parser.add_argument("--dataset", help="compute the padding fraction from this dataset, padded to one sequence each")
    parser.add_argument("--time", type=parse_duration, help="stated duration of the whole training: 50m, 1.5h, 3000")
    group = parser.add_argument_group("a model or a chip that is in no table")
    group.add_argument("--params", type=_parse_size, metavar="N", help="parameters: 7.2e9, 7.2B")
    group.add_argument("--active-params", type=_parse_size, metavar="N", help="those that a token uses, of a mixture")
    for name, text in (
        ("layers", "layers"), ("hidden", "hidden size"), ("intermediate", "inner size of the MLP, or of one expert"),
        ("heads", "attention heads"), ("kv-heads", "heads of keys and values"), ("vocab", "entries of the vocabulary"),
        ("head-dim", "size of a head, where it is not hidden / heads"), ("experts", "experts of a layer"),
        ("experts-per-token", "experts that a token uses"),
    ):  # fmt: skip
        group.add_argument(f"--{name}", type=_parse_positive, metavar="N", help=text)
    group.add_argument(
        "--mlp-matrices",
        type=int,
        choices=(2, 3),
        default=3,
        help="matrices of the MLP: 3 with a gate (default), 2 without",
    )
    group.add_argument("--peak-flops", type=_parse_size, metavar="N", help="dense peak of one device, FLOP/s: 989e12")


def make_user_facts(args: argparse.Namespace, catalog: Catalog) -> UserFacts:
    """The facts that the options state. Raises `BadExperiment` where they contradict each other."""
    from tunemark.analysis import UserFacts

    architecture = _architecture(args)
    if (
        args.model is not None
        and args.params is None
        and architecture is None
        and not _is_published(args.model, catalog)
    ):
        model = catalog.model(args.model)
        if model.name not in catalog.models():
            # Of a source, such as a folder: its dimensions are known from there alone.
            architecture = model.architecture
    return UserFacts(
        model=args.model, device=args.device, count=args.count, batch=args.batch, sequence=args.sequence,
        precision=args.precision, method=args.method, train_s=args.time, padding_fraction=_padding(args, catalog),
        parameters=args.params, active_parameters=args.active_params, architecture=architecture, scope=args.scope,
    )  # fmt: skip


def _is_published(name: str, catalog: Catalog) -> bool:
    """Whether a model that is not installed is in the table of published ones."""
    from tunemark.physics.published_models import find_published_model

    return name not in catalog.models() and ":" not in name and find_published_model(name) is not None


def _architecture(args: argparse.Namespace) -> Architecture | None:
    """The dimensions that the options state: all of them, or none."""
    stated = [name for name in _DIMENSIONS if getattr(args, name) is not None]
    if not stated:
        return None
    lacking = [f"--{name.replace('_', '-')}" for name in _DIMENSIONS if name not in stated]
    if lacking:
        raise BadExperiment(
            what=f"a model's dimensions are given without {', '.join(lacking)}",
            next="give all of them, or --params alone",
        )
    if (args.experts is None) != (args.experts_per_token is None):
        raise BadExperiment(what="of --experts and --experts-per-token one is missing", next="give both, or neither")
    from tunemark.physics import make_architecture

    try:
        return make_architecture(
            **{name: getattr(args, name) for name in _DIMENSIONS}, is_gated=args.mlp_matrices == 3,
            head_dim=args.head_dim, experts=args.experts, experts_per_token=args.experts_per_token,
            sequence=args.sequence or 1,
        )  # fmt: skip
    except ValueError as error:
        raise BadExperiment(what="the dimensions make no model", why=str(error), next="correct them") from error


def _padding(args: argparse.Namespace, catalog: Catalog) -> float | None:
    """The padding fraction: as given, or computed from document lengths, each padded as by `--batching pad`."""
    if args.dataset is None:
        return args.padding  # type: ignore[no-any-return]  # argparse's
    if args.padding is not None or args.model is None or args.sequence is None:
        raise BadExperiment(
            what="--dataset gives a padding fraction only for a model's tokenizer and a sequence length",
            next="give --model and --sequence with it, or --padding if the fraction is known",
        )
    from tunemark.data import prepare_data, read_token_file

    name, *options = args.dataset.split(":")
    dataset_options = {key: value for key, _, value in (option.partition("=") for option in options)}
    prepared = prepare_data(catalog.dataset(name), dataset_options, catalog.model(args.model), "all")
    offsets = read_token_file(Path(prepared.token_file.path)).offsets
    lengths = (offsets[1:] - offsets[:-1]).clip(max=args.sequence)
    return 1 - float(lengths.mean()) / float(args.sequence)


def parse_duration(text: str) -> float:
    """Seconds of 3000, 50m or 1.5h."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        seconds = float(text.rstrip("smh")) * units[text[-1] if text[-1:].isalpha() else "s"]
    except (KeyError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: 3000, 50m, 1.5h")
    return seconds


def _parse_fraction(text: str) -> float:
    try:
        fraction = float(text)
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction: 0.39")
    return fraction


def _parse_positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _parse_size(text: str) -> float:
    scale = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}.get(text[-1:].lower(), 1.0)
    try:
        value = float(text[:-1] if text[-1:].isalpha() else text) * scale
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf") or (text[-1:].isalpha() and scale == 1.0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0: 7.2e9, 7.2B")
    return value
