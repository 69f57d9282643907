"""A run with everything decided: what the user asked for as scalars, and what the plugins say of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from tunemark.experiment.method import Method
from tunemark.plugin.descriptors import Accelerator, Axis, Dataset, Launch, Launcher, Model, Strategy
from tunemark.plugin.protocols import Device
from tunemark_worker.contract import Assignment, TokenFile

# Ids of a completion: two lines of text, read anew for each id.
SAMPLE_TOKENS = 48


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    """What identifies a run, all defaults resolved, under the settings' names.

    dataset, strategy: with their options, sorted. warmup: None finds where steps settle. epochs, steps: None is no
    such end. python: None is the harness's own interpreter. budget: seconds; None is no limit.
    window: seconds. evaluate: documents held out. save: an absolute path.
    """

    model: str
    dataset: str
    device: str
    size: str
    strategy: str
    method: str
    precision: str
    checkpointing: str
    batching: str
    sequence: int
    micro_batch: int
    global_batch: int
    train_on: str
    weights: str
    optimizer: str
    learning_rate: float
    schedule: str
    clip_norm: float
    seed: int
    python: str | None
    epochs: int | None
    steps: int | None
    warmup: int | None
    budget: float | None
    target_interval: float
    window: float
    evaluate: int | None
    sample: str | None
    save: str | None
    breakdown: bool


def run_id(spec: RunSpec) -> str:
    """A name for the spec that changes when any of its values does: 16 hexadecimal digits."""
    canonical = json.dumps(asdict(spec), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One run, ready to be carried out.

    axes: of the mesh that the strategy spans, in order; none where it is one process. tokens_per_step: slots, whole
    job. parameters: adapters included. flops_per_token: per slot, causal attention; hardware_flops_per_token: with
    what is computed again.
    memory_floor_bytes: weights, gradients and optimizer states of one unsharded replica. notes: what was chosen or
    noticed, for the user. launcher: what starts the processes, which is no part of what the run is.
    free: where the strategy is a search, the settings that it may choose besides the layout: those that nobody gave.
    weights_path: the file or folder of published weights, where it is known to be on this machine. trust_remote_code,
    allow_pickle: what the user permits, which is no part of what the run is.
    """

    run_id: str
    spec: RunSpec
    model: Model
    method: Method
    dataset: Dataset
    dataset_options: Mapping[str, str]
    device: Device
    accelerator: Accelerator
    strategy: Strategy
    strategy_options: Mapping[str, str]
    axes: tuple[Axis, ...]
    launch: Launch
    launcher: Launcher
    launcher_options: Mapping[str, str]
    data_ranks: int
    gradient_accumulation: int
    parameters: int
    trainable_parameters: int
    flops_per_token: float
    flops_per_token_full_attention: float
    hardware_flops_per_token: float
    memory_floor_bytes: int
    tokens_per_step: int
    notes: tuple[str, ...]
    free: tuple[str, ...] = ()
    weights_path: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False

    @property
    def requires(self) -> tuple[str, ...]:
        """Modules that the worker's interpreter must have."""
        reader = ("gguf",) if _is_gguf(self.weights_path or self.spec.weights) else ()
        return (*self.model.requires, *self.method.requires, *reader)

    @property
    def needs(self) -> Mapping[str, str]:
        """The least versions that the worker's interpreter must have, by module."""
        needs = dict(self.strategy.needs)
        if self.spec.checkpointing == "selective":
            needs.setdefault("torch", "2.4")  # every strategy that needs a version needs a newer one
        return needs

    def assignment(
        self,
        token_file: TokenFile,
        attempt: str,
        *,
        calibrate: bool,
        sample_ids: Sequence[int] = (),
        eos_id: int | None = None,
        is_saving: bool = False,
    ) -> Assignment:
        """What the worker is told for one attempt. sample_ids: the prompt that it completes. is_saving: this is the
        attempt that leaves a model, where one is asked for."""
        assert self.model.runtime is not None, "a model of facts only is refused before"
        assert not self.strategy.is_search, "what a search stands for is chosen before"
        spec = self.spec
        published = self.weights_path or self.model.pretrained
        weights = f"pretrained:{published}" if spec.weights == "pretrained" else spec.weights
        return Assignment(
            run_id=self.run_id,
            attempt=attempt,
            model=self.model.name,
            model_runtime=self.model.runtime,
            architecture=self.model.told(),
            device=self.device.name,
            size=spec.size,
            device_runtime=self.device.runtime,
            strategy=self.strategy.name,
            strategy_runtime=self.strategy.runtime,
            strategy_options=dict(self.strategy_options),
            method=self.method.name,
            token_file=token_file,
            precision=spec.precision,
            checkpointing=spec.checkpointing,
            batching=spec.batching,
            sequence=spec.sequence,
            micro_batch=spec.micro_batch,
            global_batch=spec.global_batch,
            gradient_accumulation=self.gradient_accumulation,
            data_ranks=self.data_ranks,
            weights=weights,
            optimizer=spec.optimizer,
            learning_rate=spec.learning_rate,
            schedule=spec.schedule,
            clip_norm=spec.clip_norm,
            seed=spec.seed,
            epochs=spec.epochs,
            steps=spec.steps,
            warmup=spec.warmup,
            budget_s=spec.budget,
            target_interval=spec.target_interval,
            window_s=spec.window,
            calibrate=calibrate,
            breakdown=spec.breakdown,
            processes=self.launch.processes,
            threads=self.launch.threads,
            device_options=dict(self.launch.options),
            method_options=self.method.options(self.model.architecture),
            axes=[asdict(axis) for axis in self.axes],
            evaluate=spec.evaluate or 0,
            sample_ids=list(sample_ids),
            sample_tokens=SAMPLE_TOKENS,
            eos_id=eos_id,
            save=spec.save if is_saving else None,
            trust_remote_code=self.trust_remote_code,
            allow_pickle=self.allow_pickle,
        )


def _is_gguf(path: str) -> bool:
    return path.lower().endswith(".gguf")
