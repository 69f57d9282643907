"""Every family in miniature: built by transformers as its facts say; packing and kernels change no gradient."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tunemark.experiment.finetuning_method import parse_method
from tunemark.physics import NF4_BYTES, count_parameters, train_flops_per_token, weight_norm_flops
from tunemark.plugin import Model
from tunemark_models.families import WITHOUT_SDPA
from tunemark_models.plugin import tunemark_models
from tunemark_models.runtime import CausalLm
from tunemark_worker import lora_adapters
from tunemark_worker.activation_checkpointing import checkpoint_layers
from tunemark_worker.backward_update import BackwardUpdater
from tunemark_worker.batches import Batch
from tunemark_worker.chunked_loss import ScoreRule, compute_chunked_loss
from tunemark_worker.compilation import compile_model
from tunemark_worker.contract import Place
from tunemark_worker.gradient_norm import clip_gradients
from tunemark_worker.optimizer import OPTIMIZERS, make_optimizer
from tunemark_worker.quantized_base import count_values, quantize_matrices
from tunemark_worker.training_loop import cross_entropy_sum, make_updater
from tunemark_worker.training_settings import IN_BACKWARD

# Those of families without a formula are tried by what they are traced as.
TINY = {m.name: m for m in tunemark_models() if m.name.endswith("-tiny") and m.architecture.traced is None}

_PLAIN = ("llama-2-tiny", "gemma-2-tiny")

# A window of 3 tokens must be felt by documents of 5 and 6.
DOCUMENTS = [[3, 4, 5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]


def smaller(model: Model) -> Model:
    """Two layers and 50 words, with all that makes the family what it is."""
    a = model.architecture
    window = None if a.sliding_window is None else 3
    kinds = None if a.layer_types is None else a.layer_types[:2]
    small = dataclasses.replace(a, vocab_size=50, num_hidden_layers=2, sliding_window=window, layer_types=kinds)
    return dataclasses.replace(model, architecture=small)


def build(
    model: Model, precision: str = "fp32", attention: str = "auto", loss: str = "plain"
) -> tuple[CausalLm, torch.nn.Module]:
    runtime = CausalLm()
    torch.manual_seed(0)
    facts = {"architecture": model.worker_architecture(), "batching": "pad", "loss": loss}
    stated: Any = SimpleNamespace(**facts, precision=precision, weights="random", attention=attention)
    return runtime, runtime.build(stated, Place("cpu", 0, 1, 0, 1)).train()


@pytest.mark.parametrize(("name", "kernel"), [("llama-2-tiny", "sdpa"), ("gemma-2-tiny", "eager")])
def test_the_runtime_says_how_it_computes_attention(name: str, kernel: str) -> None:
    runtime, module = build(smaller(TINY[name]))
    assert runtime.attention() == {"kernel": kernel, "reason": None}
    assert module.config._attn_implementation == kernel


@pytest.mark.full
def test_families_without_sdpa_are_those_of_transformers() -> None:
    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()
    classes = {kind: getattr(transformers, name if isinstance(name, str) else name[0]) for kind, name in names}
    assert len(classes) > 100
    assert {kind for kind, each in classes.items() if not each._supports_sdpa} == WITHOUT_SDPA


def test_sdpa_is_not_offered_where_a_family_has_none() -> None:
    offered = {model.name: "sdpa" in model.supports.get("attention", ()) for model in tunemark_models()}
    assert (offered["gpt-oss-tiny"], offered["glm-4-tiny"]) == (False, True)


def batch(rows: Sequence[Sequence[list[int]]], sequence: int, packed: bool) -> Batch:
    """rows: lists of documents, each a list of ids."""
    shape = len(rows), sequence
    ids, labels = torch.zeros(shape, dtype=torch.int64), torch.full(shape, -100)
    documents, positions = torch.full(shape, -1), torch.zeros(shape, dtype=torch.int64)
    for r, row in enumerate(rows):
        at = 0
        for d, document in enumerate(row):
            here = slice(at, at + len(document))
            ids[r, here] = labels[r, here] = torch.tensor(document)
            labels[r, at] = -100
            documents[r, here] = d
            positions[r, here] = torch.arange(len(document))
            at += len(document)
    return Batch(ids, labels, documents, positions, packed)


@pytest.mark.parametrize("name", ["llama-2-tiny", "gemma-2-tiny", "gpt2-tiny"])
def test_a_padded_row_has_its_own_loss_at_every_width(name: str) -> None:
    runtime, module = build(smaller(TINY[name]))

    def loss_sum(rows: list[list[int]], width: int) -> float:
        made = batch([[row] for row in rows], width, False)
        return cross_entropy_sum(runtime.logits(module, made), made.labels).item()

    with torch.no_grad():
        alone = [loss_sum([document], len(document)) for document in DOCUMENTS]
        for width in (8, 16):
            assert loss_sum(DOCUMENTS, width) == pytest.approx(sum(alone), rel=1e-5)
            assert loss_sum(DOCUMENTS[:2], width) == pytest.approx(sum(alone[:2]), rel=1e-5)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("attention", ["auto", "eager", "varlen"])
def test_packing_changes_no_loss_and_no_gradient(name: str, attention: str) -> None:
    model = smaller(TINY[name])
    if attention != "auto" and attention not in model.supports.get("attention", ()):
        assert model.is_remote
        return
    runtime, module = build(model, attention=attention)
    assert sum(p.numel() for p in module.parameters()) == count_parameters(model.architecture).total
    found = []
    for each in (batch([[d] for d in DOCUMENTS], 8, False), batch([DOCUMENTS], 16, True)):
        module.zero_grad()
        loss = cross_entropy_sum(runtime.logits(module, each), each.labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        grads = [p.grad for p in module.parameters()]
        assert all(g is not None and bool(g.any()) for g in grads)
        found.append((loss.item(), torch.linalg.vector_norm(torch.stack([g.norm() for g in grads])).item()))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_a_chunked_loss_has_the_gradients_of_the_plain_one(name: str) -> None:
    model = smaller(TINY[name])
    if model.is_remote:
        assert "loss" not in model.supports
        return
    found = []
    for kind in ("plain", "chunked"):
        runtime, module = build(model, loss=kind)
        row = batch([DOCUMENTS, [DOCUMENTS[0]]], 16, True)
        if kind == "plain":
            loss = cross_entropy_sum(runtime.logits(module, row), row.labels)
        else:
            scores = runtime.logits(module, row)
            assert scores.shape == (2, 16, 50)
            assert cross_entropy_sum(scores, row.labels).item() == pytest.approx(found[0][0].item(), rel=1e-5)
            loss = runtime.loss_sum(module, row)
        (loss * 0.25).backward()  # type: ignore[no-untyped-call]  # torch's
        found.append((loss.detach(), [p.grad for p in module.parameters()]))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=0.0)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_of_some_rows_sum_to_the_whole(cap: float | None, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 30)
    hidden, labels = torch.randn(3, 7, 8), torch.randint(0, 30, (3, 7))
    labels[0, :3] = labels[2, 6] = -100
    found = []
    for rows in (2, 1000):
        head.zero_grad()
        states = hidden.clone().requires_grad_()
        loss = compute_chunked_loss(states, head, labels, ScoreRule(0.5, cap), dtype, chunk_scores=30 * rows)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        found.append([loss.detach(), states.grad, head.weight.grad, head.bias.grad])
    states = hidden.clone().requires_grad_()
    head.zero_grad()
    scores = head(states) * 0.5
    scores = scores if cap is None else torch.tanh(scores / cap) * cap
    loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="sum")
    loss.backward()  # type: ignore[no-untyped-call]  # torch's
    wanted = [loss.detach(), states.grad, head.weight.grad, head.bias.grad]
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    for each in found:
        for one, other in zip(each, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in (*_PLAIN, "gpt2-tiny") else [pytest.mark.full]) for n in TINY]
)
def test_adapters_train_alone_at_the_flops_and_parameters_that_are_planned(name: str) -> None:
    model = smaller(TINY[name])
    a, chosen = model.architecture, parse_method("lora:r=4")
    runtime, module = build(model)
    before = runtime.logits(module, batch([DOCUMENTS], 16, True)).detach()
    lora_adapters.apply_method(chosen.name, chosen.options(a), module)
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    counts = sum(p.numel() for p in module.parameters()), sum(p.numel() for p in trained.values())
    assert counts == chosen.parameters(a)

    # One product of each pair is 0 until the first step, which moves it.
    row = batch([DOCUMENTS], 16, True)
    with torch.no_grad():
        for n, p in trained.items():
            if "lora_B" in n:
                p.copy_(torch.randn_like(p))
    changed = runtime.logits(module, row)
    assert (changed - before).abs().max() > 1e-3
    # Eager attention and eager experts, all of whose multiplications are counted, over one document of 16 tokens.
    config: Any = module.config
    config._attn_implementation = config._experts_implementation = "eager"
    alone = batch([[list(range(3, 19))]], 16, False)
    with FlopCounterMode(display=False) as counter:
        cross_entropy_sum(runtime.logits(module, alone), alone.labels).backward()  # type: ignore[no-untyped-call]  # torch's
    assert all(p.grad is not None and bool(p.grad.any()) for p in trained.values())
    assert all(p.grad is None for n, p in module.named_parameters() if n not in trained)
    # Rotary angles of a module this small are counted and are no work on weights or scores.
    planned = train_flops_per_token(a, 16, "full", chosen.trained(a))
    assert counter.get_total_flops() / 16 == pytest.approx(planned, rel=5e-4)

    lora_adapters.merge_adapters(module)
    torch.testing.assert_close(runtime.logits(module, row), changed, atol=2e-5, rtol=2e-4)
    assert sum(p.numel() for p in module.parameters()) == count_parameters(a).total


def _compute_plain_adapters(
    runtime: CausalLm, base: torch.nn.Module, adapted: torch.nn.Module, scale: float, rows: Batch
) -> dict[str, torch.Tensor]:
    """The gradient of each adapter's weight, where every adapted matrix is written as W + s B A, or with magnitudes as
    m (W + s B A) / |W + s B A|, rows divided by their norms, and the norms are constants. Liu et al. 2024, "DoRA",
    equation 5 and section 4.3."""
    leaves = {n: p.detach().clone().requires_grad_() for n, p in adapted.named_parameters() if p.requires_grad}
    weights = dict(base.named_parameters())
    for name in [n for n in leaves if ".lora_A." in n]:
        path = name.partition(".lora_A.")[0]
        first, second = leaves[name], leaves[name.replace("lora_A", "lora_B")]
        is_transposed = type(base.get_submodule(path)).__name__ == "Conv1D"
        whole = weights[f"{path}.weight"].detach()
        whole = (whole.T if is_transposed else whole) + scale * second @ first
        magnitudes = leaves.get(f"{path}.lora_magnitude_vector.default.weight")
        if magnitudes is not None:
            whole = (magnitudes / whole.detach().norm(dim=1))[:, None] * whole
        weights[f"{path}.weight"] = whole.T if is_transposed else whole

    class Whole(torch.nn.Module):
        config = base.config

        def forward(self, *args: Any, **more: Any) -> Any:
            return torch.func.functional_call(base, weights, args, more)

    loss = cross_entropy_sum(runtime.logits(Whole(), rows), rows.labels)
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


@pytest.mark.full
@pytest.mark.parametrize("name", ["llama-2-tiny", "gpt2-tiny", "phi-3-tiny"])
def test_matrices_of_4_bits_train_their_adapters_as_what_they_stand_for(name: str) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", minversion="0.50", reason="matrices of 4 bits are bitsandbytes'")
    model = smaller(TINY[name])
    a, chosen = model.architecture, parse_method("qlora:r=4:alpha=6")
    runtime, module = build(model)
    base, row = copy.deepcopy(module), batch([[list(range(3, 19))]], 16, False)
    options = chosen.options(a)
    quantize_matrices(module, options["quantized"], (), torch.float32, "cpu")
    stored = [each for each in module.parameters() if hasattr(each, "quant_state")]
    for path, each in module.named_modules():
        if isinstance(each, bitsandbytes.nn.Linear4bit):
            whole = bitsandbytes.functional.dequantize_4bit(each.weight.data, each.weight.quant_state)
            old = base.get_submodule(path)
            old.weight.data = whole.T.contiguous() if type(old).__name__ == "Conv1D" else whole
    lora_adapters.apply_method(chosen.name, options, module)
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert (count_values(module.parameters()), count_values(trained.values())) == chosen.parameters(a)
    assert count_values(stored) == chosen.quantized_parameters(a)
    # Blocks that are not full cost a little more.
    taken = [each for p in stored for each in (p.data, p.quant_state.absmax, p.quant_state.state2.absmax)]
    assert sum(each.nbytes for each in taken) == pytest.approx(NF4_BYTES * count_values(stored), rel=2e-3)

    with torch.no_grad():
        for n, p in trained.items():
            if "lora_B" in n:
                p.copy_(torch.randn_like(p))
    module.eval()
    with torch.no_grad():
        runtime.logits(module, row)
    module.train()
    cross_entropy_sum(runtime.logits(module, row), row.labels).backward()  # type: ignore[no-untyped-call]  # torch's
    plain = _compute_plain_adapters(runtime, base, module, 6 / 4, row)
    for n, p in trained.items():
        torch.testing.assert_close(p.grad, plain[n], rtol=1e-3, atol=1e-4 * float(plain[n].abs().max()))


# Matrices of torch's linear modules, and stored transposed.
_DORA = ("llama-2-tiny", "gpt2-tiny")


@pytest.mark.parametrize("name", [*_DORA, *(pytest.param(n, marks=pytest.mark.full) for n in TINY if n not in _DORA)])
def test_magnitudes_train_beside_the_adapters_as_in_a_plain_computation(name: str) -> None:
    model = smaller(TINY[name])
    a, chosen = model.architecture, parse_method("lora:r=4:alpha=6:dora=true:rslora=true")
    runtime, module = build(model)
    base, row = copy.deepcopy(module), batch([[list(range(3, 19))]], 16, False)
    first = cross_entropy_sum(runtime.logits(module, row), row.labels).item()
    lora_adapters.apply_method(chosen.name, chosen.options(a), module)
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    assert (sum(p.numel() for p in module.parameters()), sum(p.numel() for p in trained.values())) == chosen.parameters(
        a
    )
    # The magnitudes start as the norms of the rows, so the first step's loss is the model's own.
    assert cross_entropy_sum(runtime.logits(module, row), row.labels).item() == pytest.approx(first, rel=1e-6)

    torch.manual_seed(1)
    with torch.no_grad():
        for n, p in trained.items():
            if "lora_A" not in n:
                p.add_(0.1 * torch.randn_like(p))
    config: Any = module.config
    config._attn_implementation = config._experts_implementation = "eager"
    with FlopCounterMode(display=False) as counter:
        changed = runtime.logits(module, row)
        cross_entropy_sum(changed, row.labels).backward()  # type: ignore[no-untyped-call]  # torch's
    # alpha / sqrt(r).
    plain = _compute_plain_adapters(runtime, base, module, 6 / 2, row)
    for n, p in trained.items():
        torch.testing.assert_close(p.grad, plain[n], rtol=1e-4, atol=1e-4 * float(plain[n].abs().max()))
    norms = weight_norm_flops(a, chosen.trained(a)).spent
    planned = train_flops_per_token(a, 16, "full", chosen.trained(a)) * 16 + norms
    assert counter.get_total_flops() == pytest.approx(planned, rel=5e-4)
    assert norms > 0.02 * planned

    lora_adapters.merge_adapters(module)
    torch.testing.assert_close(runtime.logits(module, row), changed, atol=2e-5, rtol=2e-4)
    assert sum(p.numel() for p in module.parameters()) == count_parameters(a).total


_ROWS = batch([[d] for d in DOCUMENTS], 8, False)


def _gradients(run: Callable[[], torch.Tensor], module: torch.nn.Module) -> list[torch.Tensor]:
    """The loss of the rows and the gradient of every parameter, those of zeros where there is none."""
    module.zero_grad()
    loss = run()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's
    return [loss.detach()] + [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.parameters()]


def _assert_alike(plain: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> None:
    """The losses within 1e-5, every parameter's gradient within 1e-4 of its norm: fp32 rounds."""
    assert other[0].item() == pytest.approx(plain[0].item(), rel=1e-5)
    for one, two in zip(plain, other, strict=True):
        assert (two - one).norm().item() <= 1e-4 * one.norm().item() + 1e-6


@pytest.mark.full
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("attention", ["eager", "sdpa", "varlen"])
def test_every_attention_has_the_gradients_of_auto(name: str, attention: str) -> None:
    model = smaller(TINY[name])
    if attention not in model.supports.get("attention", ()):
        assert model.is_remote or attention != "eager"
        return
    found = []
    for kind in ("auto", attention):
        runtime, module = build(model, attention=kind)
        packed = batch([DOCUMENTS], 16, True)
        found.append(
            _gradients(lambda r=runtime, m=module, p=packed: cross_entropy_sum(r.logits(m, p), p.labels), module)
        )
    _assert_alike(*found)


@pytest.mark.parametrize("name", ["llama-2-tiny"])
@pytest.mark.parametrize(
    ("optimizer", "implementation"),
    [
        (name, kind)
        for name, facts in OPTIMIZERS.items()
        for kind in ("foreach", "fused")
        if facts.has_choice and (facts.has_fused or kind != "fused")
    ],
)
def test_every_implementation_of_an_update_gives_the_same_weights(
    name: str, optimizer: str, implementation: str
) -> None:
    runtime, module = build(smaller(TINY[name]))
    _gradients(lambda: cross_entropy_sum(runtime.logits(module, _ROWS), _ROWS.labels), module)
    found = []
    for kind in ("loop", implementation):
        trained = copy.deepcopy(module)
        for one, other in zip(trained.parameters(), module.parameters(), strict=True):
            one.grad = other.grad
        made = make_optimizer(optimizer, trained.parameters(), 1e-2, kind)
        for _ in range(3):
            made.step()
        found.append(list(trained.parameters()))
    for one, other, start in zip(*found, module.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
        assert not torch.equal(other, start)


def _make_update_cases() -> list[Any]:
    cases = []
    for name in TINY:
        for optimizer, facts in OPTIMIZERS.items():
            for kind in ("loop", "foreach", "fused") if facts.has_choice else ():
                if kind == "fused" and not facts.has_fused:
                    continue
                is_short = name in _PLAIN and (optimizer, kind) in (("adamw", "loop"), ("adafactor", "foreach"))
                cases.append(pytest.param(name, optimizer, kind, marks=() if is_short else pytest.mark.full))
    return cases


@pytest.mark.parametrize(("name", "optimizer", "implementation"), _make_update_cases())
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_an_update_in_the_backward_pass_is_the_one_after_it(
    name: str, optimizer: str, implementation: str, checkpointing: str
) -> None:
    runtime, module = build(smaller(TINY[name]))
    checkpoint_layers(module, checkpointing)
    start, found = copy.deepcopy(module.state_dict()), []
    most = 0
    for when in ("at-end", IN_BACKWARD):
        module.load_state_dict(start)
        parameters = list(module.parameters())
        kinds: Any = {"optimizer": optimizer, "optimizer_impl": implementation, "learning_rate": 1e-2, "update": when}
        updater = make_updater(SimpleNamespace(**kinds), parameters)  # type: ignore[arg-type]  # all that it reads
        norms = []
        for _ in range(3):
            cross_entropy_sum(runtime.logits(module, _ROWS), _ROWS.labels).backward()  # type: ignore[no-untyped-call]
            if isinstance(updater, BackwardUpdater):
                assert all(each.grad is None for each in parameters), "each gradient was freed as soon as it was used"
                norms.append(updater.take_gradient_norm())
            else:
                most = sum(each.grad is not None for each in parameters)
                norms.append(clip_gradients(parameters, float("inf")))
                updater.step()
                updater.zero_grad()
        found.append((norms, copy.deepcopy(module.state_dict())))
    assert most == len(parameters)
    (norms, weights), (others, weights_early) = found
    torch.testing.assert_close(torch.stack(others), torch.stack(norms), rtol=1e-6, atol=0.0)
    for key, weight in weights.items():
        torch.testing.assert_close(weights_early[key], weight, rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(weight, start[key]) for key, weight in weights.items())


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")  # inductor's and dynamo's own
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("kind", ["regional", "full"])
def test_a_compiled_model_has_the_gradients_of_the_plain_one(name: str, kind: str) -> None:
    model = smaller(TINY[name])
    found = []
    for each in ("off", kind):
        torch._dynamo.reset()
        runtime, module = build(model)
        compile_model(module, each)
        found.append(
            _gradients(lambda r=runtime, m=module: cross_entropy_sum(r.logits(m, _ROWS), _ROWS.labels), module)
        )
    _assert_alike(*found)
