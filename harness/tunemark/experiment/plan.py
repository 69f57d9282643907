"""The plan of one run: the spec that identifies it, and everything that plugins resolve for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from tunemark.experiment.finetuning_method import PEFT_WITH_DORA, Method
from tunemark.experiment.kernel_choice import PASSES_MASKS
from tunemark.experiment.recipes import CPU, device_class
from tunemark.experiment.run_spec import RunSpec, run_id
from tunemark.experiment.settings import NOTHING_SAID, PredictionSettings
from tunemark.fields import read_fields
from tunemark.plugin.descriptors import (
    OWN_TRAINER,
    Accelerator,
    Dataset,
    LaunchConfig,
    Launcher,
    Model,
    Strategy,
    StrategyAxis,
    Trainer,
)
from tunemark.plugin.protocols import ChecksInterpreter, Device
from tunemark_worker.contract import Assignment, TokenFile
from tunemark_worker.optimizer import OPTIMIZERS
from tunemark_worker.precision import PRECISIONS
from tunemark_worker.training_settings import IN_BACKWARD, TRAINING_SETTINGS

# Tokens generated for `--sample`: about two lines of text. Each takes a whole forward pass.
SAMPLE_TOKENS = 48


# By attention, the oldest releases that can compute it.
_ATTENTION_VERSIONS: Mapping[str, Mapping[str, str]] = {
    "varlen": {"transformers": PASSES_MASKS, "torch": "2.1"},
    "flash": {"transformers": PASSES_MASKS},
    "flex": {"transformers": PASSES_MASKS, "torch": "2.5"},
}


class VersionNeed(NamedTuple):
    """The oldest version of a module that something in a plan needs in the worker's interpreter. what: in words.
    setting: the flag with which it can be avoided."""

    what: str
    setting: str
    module: str
    minimum: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One run, ready to be executed.

    axes: of the strategy's mesh, in order; empty for one process. strategies: of the axes; a single one without axes.
    tokens_per_step: slots, whole job. parameters: adapters included. flops_per_token: per slot, causal attention;
    hardware_flops_per_token: recomputation included. Where rows differ in width, all three are those of the widest.
    memory_floor_bytes: weights, gradients and optimizer states of one unsharded replica. notes: decisions and warnings
    for the user. free: where the strategy is a search, the settings that it may choose besides the layout, which are
    those that the user did not give. weights_path: the file or folder of published weights, if already on this machine.
    launcher, trust_remote_code, allow_pickle, prediction: do not identify the run. declared: the settings by which the
    user says what the accelerator is made of. recipe: the title of the recipe that gave some of the settings.
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
    axes: tuple[StrategyAxis, ...]
    strategies: tuple[Strategy, ...]
    launch: LaunchConfig
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
    declared: Mapping[str, Any] = field(default_factory=dict)
    prediction: PredictionSettings = NOTHING_SAID
    requested_spec: RunSpec | None = None
    trainer: Trainer = OWN_TRAINER
    trainer_options: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""

    @property
    def requires(self) -> tuple[str, ...]:
        """Modules that the worker's interpreter must have."""
        gguf = ("gguf",) if (self.weights_path or self.spec.weights).lower().endswith(".gguf") else ()
        own = self.trainer.requires if self.trainer.runtime else ()
        flash = ("flash_attn",) if self.spec.attention == "flash" else ()
        liger = ("liger_kernel",) if self.spec.loss == "fused" else ()
        package = OPTIMIZERS[self.spec.optimizer].package
        updating = (package,) if package != "torch" else ()
        float8 = ("torchao",) if PRECISIONS[self.spec.precision].float8 else ()
        every = (*self.model.requires, *self.method.requires, *gguf, *own, *flash, *liger, *updating, *float8)
        return tuple(dict.fromkeys(every))

    @property
    def device_packages(self) -> tuple[str, ...]:
        """Modules that decide whether the worker's interpreter can use the device; none where that is not known here,
        because it trains on another machine, or the accelerator is absent."""
        is_here = self.accelerator.is_present and not self.launcher.is_remote
        return tuple(self.device.packages) if isinstance(self.device, ChecksInterpreter) and is_here else ()

    @property
    def version_needs(self) -> Sequence[VersionNeed]:
        """What must be in the worker's interpreter in a certain version or a newer one."""
        spec = self.spec
        what, settings = f"strategy {spec.strategy!r}", asdict(spec)
        found = [
            VersionNeed(what, "--strategy", module, minimum)
            for strategy in self.strategies
            for versions in (strategy.minimum_versions, strategy.layout_versions(self.axes, settings))
            for module, minimum in versions.items()
        ]
        found += [
            VersionNeed(f"trainer {self.trainer.name!r}", "--trainer", module, minimum)
            for module, minimum in self.trainer.minimum_versions.items()
        ]
        if spec.checkpointing == "selective":
            found.append(VersionNeed("selective checkpointing", "--checkpointing", "torch", "2.4"))
        for module, minimum in _ATTENTION_VERSIONS.get(spec.attention, {}).items():
            found.append(VersionNeed(f"attention by {spec.attention}", "--attention", module, minimum))
        if PRECISIONS[spec.precision].float8:
            # The recipes' names; products scaled by rows.
            oldest = ("0.13", "2.9") if PRECISIONS[spec.precision].float8 == "mx" else ("0.9", "2.6")
            for module, minimum in zip(("torchao", "torch"), oldest, strict=True):
                found.append(VersionNeed(f"precision {spec.precision}", "--precision", module, minimum))
        if self.method.is_quantized:
            minimum = "0.50" if device_class(spec.device) == CPU else "0.44"
            found.append(VersionNeed("qlora", "--method", "bitsandbytes", minimum))
        if self.method.dora:
            found.append(VersionNeed("DoRA", "--method", "peft", PEFT_WITH_DORA))
        if spec.compile != "off":
            found.append(VersionNeed("torch.compile", "--compile", "torch", "2.4"))
        if spec.optimizer_impl == "fused":
            found.append(VersionNeed("a fused optimizer", "--optimizer-impl", "torch", "2.4"))
        if spec.update == IN_BACKWARD:
            found.append(VersionNeed("an update in the backward pass", "--update", "torch", "2.1"))
        updater = OPTIMIZERS[spec.optimizer]
        since = updater.since_on_cpu if updater.since_on_cpu and device_class(spec.device) == CPU else updater.since
        if since:
            found.append(VersionNeed(spec.optimizer, "--optimizer", updater.package, since))
        return found

    def with_spec(self, **values: Any) -> Plan:
        """The plan with other values of its spec and their run id; only values that decide nothing else of a plan."""
        spec = replace(self.spec, **values)
        return replace(self, spec=spec, run_id=run_id(spec))

    def assignment(
        self,
        token_file: TokenFile,
        attempt: str,
        *,
        measure_peak: bool,
        sample_ids: Sequence[int] = (),
        eos_id: int | None = None,
        is_saving: bool = False,
    ) -> Assignment:
        """The worker's assignment for one attempt. sample_ids: the prompt to complete. is_saving: this attempt saves
        the model if the spec asks for it."""
        assert self.model.runtime is not None, "models without a runtime are refused earlier"
        assert not self.strategy.is_search, "a search is replaced by its chosen layout earlier"
        spec = self.spec
        published = self.weights_path or self.model.pretrained
        weights = f"pretrained:{published}" if spec.weights == "pretrained" else spec.weights
        training = read_fields(spec, *(each.name for each in TRAINING_SETTINGS))
        return Assignment(
            **{**training, "method": self.method.name, "weights": weights},
            **read_fields(self, "run_id", "gradient_accumulation", "data_ranks", "trust_remote_code", "allow_pickle"),
            **read_fields(self.launch, "processes", "threads"),
            **read_fields(spec, "size", "epochs", "steps", "warmup", "target_interval", "breakdown"),
            attempt=attempt,
            model=self.model.name,
            model_runtime=self.model.runtime,
            architecture=self.model.worker_architecture(),
            device=self.device.name,
            device_runtime=self.device.runtime,
            strategy=self.strategy.name,
            strategy_runtime=self.strategy.runtime,
            strategy_options=dict(self.strategy_options),
            token_file=token_file,
            budget_s=spec.budget,
            window_s=spec.window,
            measure_peak=measure_peak,
            device_options=dict(self.launch.options),
            method_options=self.method.options(self.model.architecture),
            axes=[asdict(axis) for axis in self.axes],
            evaluate=spec.evaluate or 0,
            sample_ids=list(sample_ids),
            sample_tokens=SAMPLE_TOKENS,
            eos_id=eos_id,
            save=spec.save if is_saving else None,
            trainer_runtime=self.trainer.runtime,
            trainer_options=dict(self.trainer_options),
        )
