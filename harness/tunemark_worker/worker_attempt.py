"""One attempt of one rank: set up, train, evaluate and save, and the facts about it for the `end` record."""

from __future__ import annotations

import os
import time
import traceback
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from tunemark_worker import capabilities, row_packing
from tunemark_worker.contract import PROBE_VARIABLE, Assignment, Place
from tunemark_worker.precision import PRECISIONS, compute_dtype
from tunemark_worker.recorder import Recorder
from tunemark_worker.schedule import make_schedule
from tunemark_worker.worker_facts import collect_facts

if TYPE_CHECKING:
    import torch

# Elements sampled from each trainable tensor, to see whether training changed it.
SAMPLED_ELEMENTS = 64


class WorkerAttempt:
    """One attempt of this rank. It keeps what was set up so far, so that `facts` can report it after a failure."""

    def __init__(self) -> None:
        self._device: Optional[capabilities.DeviceRuntime] = None
        self._strategy: Optional[capabilities.StrategyRuntime] = None
        self._module: Any = None
        self._counts: Tuple[Optional[int], Optional[int]] = (None, None)
        self._weight_samples: List[Any] = []
        self._facts_after_training: Optional[Dict[str, Any]] = None

    def run(self, assignment: Assignment, recorder: Recorder, is_interrupted: Callable[[], bool]) -> str:
        """Set up, train, evaluate and save; return why the training stopped."""
        # Imported late: torch can take many seconds or fail, and the `start` record must be written before.
        from tunemark_worker import evaluation, matmul_peak, queue_probe, trainer_session, training_loop
        from tunemark_worker.batches import MappedTokens

        a = assignment
        model = capabilities.load_model(a.model_runtime)
        if a.save and not isinstance(model, capabilities.SavesModel):
            raise ValueError("{} cannot save a model: it has no `save` method".format(a.model_runtime))
        device = capabilities.load_device(a.device_runtime)
        self._strategy = strategy = capabilities.load_strategy(a.strategy_runtime, a)
        recorder.write("phase", name="imported")

        place = device.open(a)
        self._device = device
        strategy.prepare()
        if isinstance(strategy, capabilities.PlacesRanks):
            # A strategy that arranges the ranks in a mesh decides which of them share a batch.
            place = strategy.place(place)
        recorder.write("phase", name="opened")
        facts = dict(device.facts())
        recorder.write("facts", **collect_facts(), data_rank=place.data_rank, data_ranks=place.data_ranks, device=facts)

        self._module = module = self._build(a, place, model, strategy, recorder)
        parameters = [p for p in module.parameters() if p.requires_grad]
        updater = training_loop.make_updater(a, parameters)
        self._weight_samples = _sample_weights(module)
        recorder.write("phase", name="built")

        tokens = MappedTokens(a.token_file)
        lengths = row_packing.training_lengths(tokens.lengths(), a.evaluate)
        factor = make_schedule(a.schedule, None if a.schedule == "constant" else row_packing.schedule_steps(a, lengths))
        recorder.write("phase", name="data")

        if a.measure_peak:
            dtype = compute_dtype(a.precision)
            recorder.write("peak", **matmul_peak.measure_peak(a.precision, dtype, place.device, device.synchronize))
            recorder.write("phase", name="calibrated")

        if PROBE_VARIABLE in os.environ:
            recorder.write("probe", **queue_probe.probe_queue(device, place.device))

        evaluated = evaluation.EvaluationContext(a, place, model, strategy, module, tokens, recorder)
        evaluation.evaluate(evaluated, "before")

        steps = (
            [tokens.micro_batch(rows, a) for rows in micro_batches]
            for micro_batches in row_packing.make_step_rows(a, lengths, place.data_rank)
        )
        job = training_loop.TrainingJob(
            assignment=a,
            place=place,
            device=device,
            strategy=strategy,
            model=model,
            module=module,
            optimizer=updater,
            factor=factor,
            steps=steps,
            recorder=recorder,
            clock=time.monotonic,
            second=read_second_clock,
            is_interrupted=is_interrupted,
        )
        if a.trainer_runtime:
            reason = trainer_session.train(job, capabilities.load_trainer(a.trainer_runtime, a), self._adopt)
        else:
            reason = training_loop.train(job)
        # Taken now: evaluation and saving may need more memory, and saving merges adapters into the weights.
        self._facts_after_training = self.facts()
        if reason != "interrupted":
            evaluation.evaluate(evaluated, "after")
            evaluation.save_model(evaluated)
        return reason

    def _build(
        self,
        a: Assignment,
        place: Place,
        model: capabilities.ModelRuntime,
        strategy: capabilities.StrategyRuntime,
        recorder: Recorder,
    ) -> torch.nn.Module:
        """The model as it is trained: with adapters, checkpointing and the strategy."""
        import torch  # heavy, but imported by now

        from tunemark_worker import (
            activation_checkpointing,
            activation_offload,
            compilation,
            float8_layers,
            lora_adapters,
            quantized_base,
        )

        torch.manual_seed(a.seed)
        if a.matmul_precision != "highest":
            torch.set_float32_matmul_precision(a.matmul_precision)
        if a.loss != "plain" and not isinstance(model, capabilities.ComputesLoss):
            raise ValueError("{} computes no loss without all scores: use --loss plain".format(a.model_runtime))
        is_quantized = a.method == "qlora"
        built = model.build(a, place._replace(device="cpu") if is_quantized else place)
        if is_quantized:
            idle, names = a.architecture.get("idle_modules", ()), a.method_options["quantized"]
            quantized_base.quantize_matrices(built, names, idle, compute_dtype(a.precision), place.device)
        lora_adapters.apply_method(a.method, a.method_options, built, a.architecture)
        if PRECISIONS[a.precision].float8:
            float8_layers.convert_layers(built, PRECISIONS[a.precision].float8, place.device)
        full_counts = _count_parameters(built)
        recorder.write(
            "model",
            parameters=full_counts[0],
            trainable_parameters=full_counts[1],
            weights=dict(model.weights_origin()) if isinstance(model, capabilities.ReportsWeightsOrigin) else None,
            attention=dict(model.attention()) if isinstance(model, capabilities.ReportsAttention) else None,
        )
        built.train()
        activation_checkpointing.checkpoint_layers(built, a.checkpointing)
        if a.activations == "host":
            activation_offload.offload_activations(built)
        # Layers before a strategy wraps them, as FSDP wants it.
        compilation.compile_model(built, a.compile)
        module = strategy.apply(built, place)
        # With pipeline parallelism only one stage remains in this rank, so the full counts are kept.
        is_stage = isinstance(strategy, capabilities.ComputesGradients)
        self._counts = full_counts if is_stage else _count_parameters(module)
        return module

    def _adopt(self, module: torch.nn.Module) -> None:
        """Report the facts of this module from now on: the one that another program's loop trains."""
        self._module, self._counts, self._weight_samples = module, _count_parameters(module), _sample_weights(module)

    def facts(self) -> Dict[str, Any]:
        """Fields of the `end` record that describe what was trained; None if the attempt did not get that far."""
        if self._facts_after_training is not None:
            return self._facts_after_training
        found: Dict[str, Any] = dict.fromkeys(
            ("weights_changed", "peak_memory_bytes", "strategy_selected", "parameters", "trainable_parameters")
        )
        try:
            if self._device is not None:
                found["peak_memory_bytes"] = self._device.peak_memory_bytes()
            if self._strategy is not None and self._module is not None:
                selected = self._strategy.selected()
                found["strategy_selected"] = None if selected is None else dict(selected)
                found["parameters"], found["trainable_parameters"] = self._counts
                changed = [bool((a != b).any()) for a, b in zip(self._weight_samples, _sample_weights(self._module))]
                found["weights_changed"] = any(changed)
                found["tensors_changed"], found["tensors_sampled"] = sum(changed), len(changed)
        except Exception:
            # After a failure the device may be unusable; the `end` record must be written all the same.
            traceback.print_exc()
        return found

    def leave(self) -> None:
        """Destroy the process group, if there is one."""
        import torch.distributed as dist  # heavy, but imported by now

        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def read_second_clock() -> float:
    """Seconds of another clock than CLOCK_MONOTONIC: CLOCK_MONOTONIC_RAW, which NTP does not slew, else wall time."""
    raw = getattr(time, "CLOCK_MONOTONIC_RAW", None)
    return time.time() if raw is None else time.clock_gettime(raw)


def _count_parameters(module: Any) -> Tuple[int, int]:
    """(all parameters, trainable parameters) of a model; a sharded parameter counts in full."""
    from tunemark_worker.quantized_base import count_values  # heavy, but imported by now

    every = list(module.parameters())
    return count_values(every), count_values(p for p in every if p.requires_grad)


def _sample_weights(module: Any) -> List[Any]:
    """Copies of about SAMPLES elements of this rank's part of each trainable tensor."""
    from tunemark_worker.gradient_norm import local_part  # heavy, but imported by now

    tensors = [local_part(p).flatten() for p in module.parameters() if p.requires_grad]
    return [t[:: max(1, t.numel() // SAMPLED_ELEMENTS)].clone() for t in tensors]
