"""The table of chips with their vendors' figures, each with its source and the day it was checked. Data only.

Rates are of matrix multiplication at the vendor's rated clock, without structured sparsity except in `sparse_flops`.
Figures that could not be confirmed are omitted: some chips lack a precision, many cards lack an entry. Vendors' pages
were read through public copies, named after "via".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunemark.units import GIB

TERA = 1e12


@dataclass(frozen=True, kw_only=True, slots=True)
class Chip:
    """One package as it is sold.

    name: its shortest unambiguous name. aliases: other spellings, compared without case, punctuation and vendor names.
    vendor: NVIDIA unless stated. dies: parts that software may show as separate devices; figures are of the package.
    flops: dense FLOP/s by precision. sparse_flops: with structured sparsity, where the vendor publishes it.
    memory_bytes: the vendor's GB are taken as GiB, which is what these parts have. It, bandwidth and power are None
    where they were not confirmed or differ between variants. is_ceiling: False where the clock can exceed the rated
    one, so that a rate above the peak is possible. checked: the day (ISO) on which the source was compared.
    """

    name: str
    vendor: str = "NVIDIA"
    aliases: tuple[str, ...] = ()
    dies: int = 1
    flops: Mapping[str, float]
    sparse_flops: Mapping[str, float] = field(default_factory=dict)
    memory_bytes: int | None = None
    bandwidth_bytes_per_s: float | None = None
    power_w: float | None = None
    is_ceiling: bool = True
    source: str
    checked: str = "2026-11-24"
    note: str = ""


_ML_ENGINEERING = "stas00/ml-engineering @744d01e, compute/accelerator/README.md"
_COMPOSER = "mosaicml/composer @003ec03, composer/callbacks/speed_monitor.py"
_LIGHTNING = "Lightning-AI/pytorch-lightning @1526f84, fabric/utilities/throughput.py"
_ROCM = "ROCm/legacy-rocm-build @089d751, docs/conceptual/gpu-arch"
_KLOCKWOOD = "glennklockwood.com/garden/processors"
_ANANDTECH = "anandtech.com/show/17326"

_A100 = {"fp32": 19.5 * TERA, "tf32": 156 * TERA, "bf16": 312 * TERA, "fp16": 312 * TERA}
_A100_SPARSE = {"tf32": 312 * TERA, "bf16": 624 * TERA, "fp16": 624 * TERA}
_A100_SHEET = (
    "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950"
    f"-r4-web.pdf via {_COMPOSER}; memory and power via {_KLOCKWOOD}/A100 and {_ML_ENGINEERING}"
)
# 528 tensor cores x 1024 FLOP x 1.83 GHz = 989.4.
_HOPPER = {"fp32": 66.9 * TERA, "tf32": 494.7 * TERA, "bf16": 989.4 * TERA, "fp16": 989.4 * TERA, "fp8": 1978.9 * TERA}
_HOPPER_SPARSE = {"tf32": 989.4 * TERA, "bf16": 1978.9 * TERA, "fp16": 1978.9 * TERA, "fp8": 3957.8 * TERA}
_H100_SHEET = f"https://www.nvidia.com/en-us/data-center/h100/ via {_KLOCKWOOD}/h100 and {_ML_ENGINEERING}"
_V100_SHEET = (
    "https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf via "
    f"{_COMPOSER}"
)
_ADA_PAPER = (
    "https://images.nvidia.com/aem-dam/Solutions/Data-Center/l4/nvidia-ada-gpu-architecture-whitepaper-v2.1.pdf via "
)
# 304 compute units x 2048 FLOP x 2.1 GHz = 1307.4 in 16 bits, half of that in TF32, twice in FP8.
_CDNA3 = {
    "fp32": 163.4 * TERA,
    "tf32": 653.7 * TERA,
    "bf16": 1307.4 * TERA,
    "fp16": 1307.4 * TERA,
    "fp8": 2614.9 * TERA,
}
_CDNA3_SPARSE = {"bf16": 2614.9 * TERA, "fp16": 2614.9 * TERA, "fp8": 5229.8 * TERA}

CHIPS: tuple[Chip, ...] = (
    Chip(
        name="A100",
        aliases=("A100 GPU",),
        flops=_A100,
        sparse_flops=_A100_SPARSE,
        source=_A100_SHEET,
        note="form factor not stated: all compute alike, memory, bandwidth and power differ",
    ),
    Chip(
        name="A100-SXM-40GB",
        aliases=("A100 SXM4 40GB", "A100 40GB SXM"),
        flops=_A100,
        sparse_flops=_A100_SPARSE,
        memory_bytes=40 * GIB,
        bandwidth_bytes_per_s=1.555e12,
        power_w=400,
        source=_A100_SHEET,
    ),
    Chip(
        name="A100-SXM-80GB",
        aliases=("A100 SXM4 80GB", "A100 80GB SXM", "A100 SXM", "A100 SXM4"),
        flops=_A100,
        sparse_flops=_A100_SPARSE,
        memory_bytes=80 * GIB,
        bandwidth_bytes_per_s=2.039e12,
        power_w=400,
        source=_A100_SHEET,
    ),
    Chip(
        name="A100-PCIe-40GB",
        aliases=("A100 40GB PCIe",),
        flops=_A100,
        sparse_flops=_A100_SPARSE,
        memory_bytes=40 * GIB,
        bandwidth_bytes_per_s=1.555e12,
        power_w=250,
        source=_A100_SHEET,
    ),
    Chip(
        name="A100-PCIe-80GB",
        aliases=("A100 80GB PCIe", "A100 PCIe"),
        flops=_A100,
        sparse_flops=_A100_SPARSE,
        memory_bytes=80 * GIB,
        bandwidth_bytes_per_s=1.935e12,
        power_w=300,
        source=_A100_SHEET,
    ),
    Chip(
        name="A100-80GB",
        aliases=("A100 80G",),
        flops=_A100,
        sparse_flops=_A100_SPARSE,
        memory_bytes=80 * GIB,
        source=_A100_SHEET,
        note="form factor not stated: all compute alike, bandwidth and power differ",
    ),
    Chip(
        name="A100-40GB",
        aliases=("A100 40G",),
        flops=_A100,
        sparse_flops=_A100_SPARSE,
        memory_bytes=40 * GIB,
        source=_A100_SHEET,
        note="form factor not stated: all compute alike, power differs",
    ),
    Chip(
        name="H100",
        aliases=("H100 80GB", "H100 GPU"),
        flops=_HOPPER,
        sparse_flops=_HOPPER_SPARSE,
        memory_bytes=80 * GIB,
        source=_H100_SHEET,
        note="form factor not stated: the SXM's, the highest of the three (PCIe 756, NVL 835 TFLOP/s in bf16)",
    ),
    Chip(
        name="H100-SXM-80GB",
        aliases=("H100 SXM", "H100 SXM5", "H100 SXM5 80GB", "H100 80GB HBM3", "H100 80GB SXM", "H100 HBM3"),
        flops=_HOPPER,
        sparse_flops=_HOPPER_SPARSE,
        memory_bytes=80 * GIB,
        bandwidth_bytes_per_s=3.35e12,
        power_w=700,
        source=_H100_SHEET,
    ),
    Chip(
        name="H100-SXM-96GB-500W",
        aliases=("H100 96GB 500W", "H100 SXM 96GB HBM2e"),
        flops={k: _HOPPER[k] for k in ("tf32", "bf16", "fp16", "fp8")},
        memory_bytes=96 * GIB,
        bandwidth_bytes_per_s=2.4e12,
        power_w=500,
        source=f"pytorch/torchtitan, benchmarks/llama3_h100_202412 (the part); {_H100_SHEET} (the SXM's peak)",
        note="no peak of its own is published: the SXM's bounds it, so that utilization is at least what is shown",
    ),
    Chip(
        name="H100-PCIe-80GB",
        aliases=("H100 PCIe", "H100 80GB PCIe", "H100 HBM2e", "H100 80GB HBM2e"),
        flops={"fp32": 51.2 * TERA, "tf32": 378 * TERA, "bf16": 756 * TERA, "fp16": 756 * TERA, "fp8": 1513 * TERA},
        sparse_flops={"tf32": 756 * TERA, "bf16": 1513 * TERA, "fp16": 1513 * TERA, "fp8": 3026 * TERA},
        memory_bytes=80 * GIB,
        bandwidth_bytes_per_s=2.0e12,
        power_w=350,
        source=f"https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet via {_COMPOSER}",
    ),
    Chip(
        name="H100-NVL-94GB",
        aliases=("H100 NVL", "H100 NVL 94GB"),
        flops={"bf16": 835 * TERA, "fp16": 835 * TERA},
        memory_bytes=94 * GIB,
        source="https://www.nvidia.com/en-us/data-center/h100/ via pytorch/torchtitan @0258167, tools/utils.py",
    ),
    Chip(
        name="H200",
        aliases=("H200 SXM", "H200 SXM5", "H200 141GB", "H200 SXM 141GB", "H200 141GB HBM3e", "H200 SXM5 141GB"),
        flops=_HOPPER,
        sparse_flops=_HOPPER_SPARSE,
        memory_bytes=141 * GIB,
        bandwidth_bytes_per_s=4.8e12,
        power_w=700,
        source=f"https://www.nvidia.com/en-us/data-center/h200/ via {_ML_ENGINEERING} and {_COMPOSER}",
    ),
    Chip(
        name="GH200",
        aliases=("GH200 120GB", "GH200 480GB", "GH200 SXM", "GH200 96GB", "GH200 144GB"),
        flops={"tf32": 494.7 * TERA, "bf16": 989.4 * TERA, "fp16": 989.4 * TERA, "fp8": 1978.9 * TERA},
        sparse_flops=_HOPPER_SPARSE,
        source=f"https://www.nvidia.com/en-us/data-center/grace-hopper-superchip/ via {_ML_ENGINEERING}",
        note="sold with 96 GB of HBM3 or 144 GB of HBM3e",
    ),
    Chip(
        name="B200",
        aliases=("B200 SXM", "B200 180GB", "B200 192GB", "HGX B200", "DGX B200"),
        flops={
            "fp32": 80 * TERA,
            "tf32": 1125 * TERA,
            "bf16": 2250 * TERA,
            "fp16": 2250 * TERA,
            "fp8": 4500 * TERA,
            "fp4": 9000 * TERA,
        },
        sparse_flops={"bf16": 4500 * TERA, "fp16": 4500 * TERA, "fp8": 9000 * TERA, "fp4": 18000 * TERA},
        memory_bytes=180 * GIB,
        bandwidth_bytes_per_s=8.0e12,
        power_w=1000,
        source=f"https://resources.nvidia.com/en-us-dgx-systems/dgx-b200-datasheet via {_ML_ENGINEERING} and "
        f"{_KLOCKWOOD}/B200",
    ),
    Chip(
        name="GB200",
        aliases=("GB200 NVL72", "GB200 SXM", "GB200 186GB"),
        flops={
            "tf32": 1250 * TERA,
            "bf16": 2500 * TERA,
            "fp16": 2500 * TERA,
            "fp8": 5000 * TERA,
            "fp4": 10000 * TERA,
        },
        sparse_flops={"bf16": 5000 * TERA, "fp16": 5000 * TERA, "fp8": 10000 * TERA, "fp4": 20000 * TERA},
        memory_bytes=186 * GIB,
        bandwidth_bytes_per_s=8.0e12,
        power_w=1200,
        source=f"https://www.nvidia.com/en-us/data-center/gb200-nvl72/ via {_ML_ENGINEERING} and {_KLOCKWOOD}/B200",
        note="per GPU, of which a superchip has two; NVIDIA's own benchmarks divide by 2450 in bf16",
    ),
    Chip(
        name="B300",
        aliases=("B300 SXM", "B300 288GB", "HGX B300", "DGX B300"),
        flops={"bf16": 2250 * TERA, "fp16": 2250 * TERA, "fp8": 4500 * TERA},
        sparse_flops={"bf16": 4500 * TERA, "fp16": 4500 * TERA, "fp8": 9000 * TERA},
        memory_bytes=288 * GIB,
        bandwidth_bytes_per_s=8.0e12,
        source=f"https://resources.nvidia.com/en-us-dgx-systems/dgx-b300-datasheet via {_ML_ENGINEERING} and "
        f"{_KLOCKWOOD}/B300",
        note="fp4 is left out: published figures differ, 12.6 to 15 PFLOP/s",
    ),
    Chip(
        name="GB300",
        aliases=("GB300 NVL72", "GB300 SXM"),
        flops={"bf16": 2500 * TERA, "fp16": 2500 * TERA, "fp8": 5000 * TERA, "fp4": 15000 * TERA},
        bandwidth_bytes_per_s=8.0e12,
        source=f"https://www.nvidia.com/en-us/data-center/gb300-nvl72/ via {_ML_ENGINEERING}",
        note="per GPU, of which a superchip has two; NVIDIA's own benchmarks divide by 2450 in bf16",
    ),
    Chip(
        name="L40S",
        aliases=("L40S 48GB",),
        flops={"fp32": 91.6 * TERA, "tf32": 183 * TERA, "bf16": 362 * TERA, "fp16": 362 * TERA, "fp8": 733 * TERA},
        sparse_flops={"fp8": 1466 * TERA},
        memory_bytes=48 * GIB,
        bandwidth_bytes_per_s=864e9,
        power_w=350,
        source=f"https://www.nvidia.com/en-us/data-center/l40s/ via {_ML_ENGINEERING}",
    ),
    Chip(
        name="L4",
        aliases=("L4 24GB",),
        flops={"fp32": 30.3 * TERA, "tf32": 60 * TERA, "bf16": 121 * TERA, "fp16": 121 * TERA, "fp8": 242.5 * TERA},
        sparse_flops={"tf32": 120 * TERA, "bf16": 242 * TERA, "fp16": 242 * TERA, "fp8": 485 * TERA},
        memory_bytes=24 * GIB,
        bandwidth_bytes_per_s=300e9,
        power_w=72,
        source=f"{_ADA_PAPER}{_LIGHTNING}; fp8, memory and power as resellers print the data sheet",
    ),
    Chip(
        name="RTX-4090",
        aliases=("GeForce RTX 4090", "4090", "RTX 4090 24GB"),
        flops={"fp32": 82.6 * TERA, "tf32": 82.6 * TERA, "bf16": 165.2 * TERA, "fp16": 165.2 * TERA},
        sparse_flops={"bf16": 330.3 * TERA, "fp16": 330.3 * TERA},
        memory_bytes=24 * GIB,
        bandwidth_bytes_per_s=1.008e12,
        power_w=450,
        is_ceiling=False,
        source=f"{_ADA_PAPER}hmc-tech.com and waredb.com",
        note="accumulating in fp32, as training does; its clock passes the rated boost, and bf16 multiplications at "
        "173 TFLOP/s have been measured (zzc0721/torch-performance-test-data); fp8 differs between sources",
    ),
    Chip(
        name="A40",
        aliases=("A40 48GB",),
        flops={"fp32": 37.4 * TERA, "tf32": 74.8 * TERA, "bf16": 149.7 * TERA, "fp16": 149.7 * TERA},
        sparse_flops={"tf32": 149.6 * TERA, "bf16": 299.4 * TERA, "fp16": 299.4 * TERA},
        memory_bytes=48 * GIB,
        bandwidth_bytes_per_s=696e9,
        power_w=300,
        source="NVIDIA A40 data sheet as resellers print it (ecer.com)",
    ),
    Chip(
        name="RTX-A6000",
        aliases=("A6000", "A6000 48GB", "RTX A6000 48GB"),
        flops={"fp32": 38.7 * TERA, "tf32": 77.4 * TERA, "bf16": 154.8 * TERA, "fp16": 154.8 * TERA},
        sparse_flops={"bf16": 309.7 * TERA, "fp16": 309.7 * TERA},
        memory_bytes=48 * GIB,
        bandwidth_bytes_per_s=768e9,
        power_w=300,
        source=f"NVIDIA GA102 white paper v2.0, appendix C, via {_LIGHTNING} (fp32, tf32) and llmperf.net (fp16, bf16)",
    ),
    Chip(
        name="A10",
        aliases=("A10 24GB",),
        flops={"fp32": 31.2 * TERA, "tf32": 62.5 * TERA, "bf16": 125 * TERA, "fp16": 125 * TERA},
        source="https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a10/pdf/a10-datasheet.pdf via "
        f"{_COMPOSER}",
        note="not the A10G, whose figure is not confirmed",
    ),
    Chip(
        name="V100-SXM",
        aliases=("V100", "V100 16GB", "V100 32GB", "V100 SXM 16GB", "V100 SXM 32GB"),
        flops={"fp32": 15.7 * TERA, "fp16": 125 * TERA},
        bandwidth_bytes_per_s=900e9,
        power_w=300,
        source=_V100_SHEET,
        note="16 or 32 GB; no bf16 and no TF32",
    ),
    Chip(
        name="V100-PCIe",
        aliases=("V100 PCIE 16GB", "V100 PCIE 32GB"),
        flops={"fp32": 14 * TERA, "fp16": 112 * TERA},
        bandwidth_bytes_per_s=900e9,
        power_w=250,
        source=_V100_SHEET,
        note="16 or 32 GB; no bf16 and no TF32",
    ),
    Chip(
        name="V100S-PCIe",
        aliases=("V100S", "V100S PCIE 32GB"),
        flops={"fp32": 16.4 * TERA, "fp16": 130 * TERA},
        source=_V100_SHEET,
        note="no bf16 and no TF32",
    ),
    Chip(
        name="T4",
        aliases=("T4 16GB",),
        flops={"fp32": 8.1 * TERA, "fp16": 65 * TERA},
        memory_bytes=16 * GIB,
        power_w=70,
        source="https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/tesla-t4/"
        f"t4-tensor-core-datasheet-951643.pdf via {_COMPOSER}",
        note="no bf16 and no TF32",
    ),
    Chip(
        name="MI100",
        vendor="AMD",
        flops={"fp32": 46.1 * TERA, "bf16": 92.3 * TERA, "fp16": 184.6 * TERA},
        memory_bytes=32 * GIB,
        bandwidth_bytes_per_s=1.228e12,
        power_w=300,
        source=f"https://rocm.docs.amd.com/en/latest/reference/gpu-arch/mi100.html via {_ROCM}/mi100.md; power via "
        f"{_ANANDTECH}",
        note="bf16 at half the rate of fp16",
    ),
    Chip(
        name="MI210",
        vendor="AMD",
        flops={"fp32": 45.3 * TERA, "bf16": 181 * TERA, "fp16": 181 * TERA},
        memory_bytes=64 * GIB,
        bandwidth_bytes_per_s=1.638e12,
        power_w=300,
        source=f"AMD's announcement of 2022-03-22 via {_ANANDTECH}; one of an MI250's two dies",
    ),
    Chip(
        name="MI250",
        vendor="AMD",
        dies=2,
        flops={"fp32": 90.5 * TERA, "bf16": 362.1 * TERA, "fp16": 362.1 * TERA},
        memory_bytes=128 * GIB,
        bandwidth_bytes_per_s=3.277e12,
        power_w=560,
        source=f"https://rocm.docs.amd.com/en/latest/reference/gpu-arch/mi250.html via {_ROCM}/mi250.md; power via "
        f"{_ANANDTECH}",
        note="fp32 by its matrix cores; vectors alone do 45.3",
    ),
    Chip(
        name="MI250X",
        vendor="AMD",
        dies=2,
        flops={"fp32": 95.7 * TERA, "bf16": 383 * TERA, "fp16": 383 * TERA},
        memory_bytes=128 * GIB,
        bandwidth_bytes_per_s=3.277e12,
        power_w=560,
        source="https://www.amd.com/en/products/accelerators/instinct/mi200/mi250x.html via "
        f"{_ML_ENGINEERING}; fp32 via zexron.com",
        note="fp32 by its matrix cores; vectors alone do 47.9",
    ),
    Chip(
        name="MI300X",
        vendor="AMD",
        aliases=("MI300X OAM", "MI300X 192GB"),
        flops=_CDNA3,
        sparse_flops=_CDNA3_SPARSE,
        memory_bytes=192 * GIB,
        bandwidth_bytes_per_s=5.3e12,
        power_w=750,
        source=f"https://rocm.docs.amd.com/en/latest/reference/gpu-arch/mi300.html via {_ROCM}/mi300.md; memory and "
        f"sparse figures via {_ML_ENGINEERING}",
    ),
    Chip(
        name="MI325X",
        vendor="AMD",
        aliases=("MI325X OAM", "MI325X 256GB"),
        flops=_CDNA3,
        sparse_flops=_CDNA3_SPARSE,
        memory_bytes=256 * GIB,
        bandwidth_bytes_per_s=6.0e12,
        power_w=1000,
        source="https://www.amd.com/en/products/accelerators/instinct/mi300/mi325x.html via awesomeagents.ai and "
        f"{_ML_ENGINEERING}",
    ),
    Chip(
        name="MI350X",
        vendor="AMD",
        flops={"bf16": 2306.9 * TERA, "fp16": 2306.9 * TERA, "fp8": 4613.7 * TERA, "fp4": 9227.5 * TERA},
        memory_bytes=288 * GIB,
        bandwidth_bytes_per_s=8.0e12,
        power_w=1000,
        source="https://www.amd.com/en/products/accelerators/instinct/mi350/mi350x.html via tomshardware.com (sparse "
        f"fp4, 18.45 PFLOP/s) and {_ML_ENGINEERING}",
        note="256 compute units x 4096 FLOP x 2.2 GHz in 16 bits; AMD rounds to 2.3 PFLOP/s",
    ),
    Chip(
        name="MI355X",
        vendor="AMD",
        flops={"bf16": 2516.6 * TERA, "fp16": 2516.6 * TERA, "fp8": 5033.2 * TERA, "fp4": 10066.3 * TERA},
        sparse_flops={"bf16": 5033.2 * TERA, "fp16": 5033.2 * TERA, "fp8": 10066.3 * TERA},
        memory_bytes=288 * GIB,
        bandwidth_bytes_per_s=8.0e12,
        power_w=1400,
        source=f"https://www.amd.com/en/products/accelerators/instinct/mi350/mi355x.html via {_ML_ENGINEERING}",
        note="256 compute units x 4096 FLOP x 2.4 GHz in 16 bits; AMD rounds to 2.5, 5 and 10.1 PFLOP/s",
    ),
    Chip(
        name="Gaudi2",
        vendor="Intel",
        aliases=("Gaudi 2", "HL-225", "Gaudi2 96GB"),
        flops={"bf16": 432 * TERA, "fp8": 865 * TERA},
        memory_bytes=96 * GIB,
        bandwidth_bytes_per_s=2.46e12,
        power_w=600,
        source="https://www.intel.com/content/www/us/en/content-details/839363/intel-gaudi-2-ai-accelerators-white-paper"
        f".html via {_ML_ENGINEERING}",
    ),
    Chip(
        name="Gaudi3",
        vendor="Intel",
        aliases=("Gaudi 3", "HL-325L", "Gaudi3 128GB"),
        flops={"bf16": 1835 * TERA, "fp8": 1835 * TERA},
        memory_bytes=128 * GIB,
        bandwidth_bytes_per_s=3.67e12,
        power_w=900,
        source="Intel at Hot Chips, August 2024, via servethehome.com and sgpjbg.com",
        note=f"parts on sale run at 1.6 GHz, not 1.75, and reach 1677 TFLOP/s ({_ML_ENGINEERING})",
    ),
    Chip(
        name="TPU-v3",
        vendor="Google",
        aliases=("TPUv3", "TPU v3 chip"),
        dies=2,
        flops={"bf16": 123 * TERA},
        memory_bytes=32 * GIB,
        bandwidth_bytes_per_s=900e9,
        source="https://cloud.google.com/tpu/docs/v3",
        note="per chip; software counts its two cores",
    ),
    Chip(
        name="TPU-v4",
        vendor="Google",
        aliases=("TPUv4",),
        flops={"bf16": 275 * TERA},
        memory_bytes=32 * GIB,
        bandwidth_bytes_per_s=1.2e12,
        source="https://cloud.google.com/tpu/docs/v4",
    ),
    Chip(
        name="TPU-v5e",
        vendor="Google",
        aliases=("TPUv5e", "TPU v5 lite", "TPU v5litepod"),
        flops={"bf16": 197 * TERA},
        memory_bytes=16 * GIB,
        bandwidth_bytes_per_s=819e9,
        source="https://docs.cloud.google.com/tpu/docs/v5e",
    ),
    Chip(
        name="TPU-v5p",
        vendor="Google",
        aliases=("TPUv5p", "TPU v5"),
        flops={"bf16": 459 * TERA, "fp8": 459 * TERA},
        memory_bytes=95 * GIB,
        bandwidth_bytes_per_s=2.765e12,
        source="https://docs.cloud.google.com/tpu/docs/v5p and https://docs.cloud.google.com/tpu/docs/tpu7x (fp8)",
    ),
    Chip(
        name="TPU-v6e",
        vendor="Google",
        aliases=("TPUv6e", "Trillium", "TPU v6 lite"),
        flops={"bf16": 918 * TERA, "fp8": 918 * TERA},
        memory_bytes=32 * GIB,
        bandwidth_bytes_per_s=1.638e12,
        source="https://docs.cloud.google.com/tpu/docs/v6e and https://docs.cloud.google.com/tpu/docs/tpu7x (fp8)",
    ),
    Chip(
        name="TPU-v7x",
        vendor="Google",
        aliases=("TPU7x", "TPUv7x", "Ironwood", "TPU v7"),
        dies=2,
        flops={"bf16": 2307 * TERA, "fp8": 4614 * TERA},
        memory_bytes=192 * GIB,
        source="https://docs.cloud.google.com/tpu/docs/tpu7x",
        note="per chip, of two TensorCores",
    ),
    Chip(
        name="Trainium2",
        vendor="Amazon",
        aliases=("Trn2", "Trainium 2"),
        flops={"fp32": 181 * TERA, "tf32": 667 * TERA, "bf16": 667 * TERA, "fp16": 667 * TERA, "fp8": 1299 * TERA},
        memory_bytes=96 * GIB,
        bandwidth_bytes_per_s=2.9e12,
        source="https://awsdocs-neuron.readthedocs-hosted.com/en/latest/about-neuron/arch/neuron-hardware/"
        f"trainium2.html via {_ML_ENGINEERING}",
    ),
)

# Chips without an entry, with the reason.
UNCONFIRMED: Mapping[str, str] = {
    "A10G": "sources differ between 70 and 125 TFLOP/s in bf16",
    "A800": "no vendor's page was found",
    "A800 80GB": "no vendor's page was found",
    "H800": "no vendor's page was found",
    "H20": "no vendor's page was found",
    "RTX 3090": "its rate with fp32 accumulation was not confirmed",
    "RTX 5090": "its rate with fp32 accumulation was not confirmed",
    "Ascend 910B": "variants differ from 313 to 376 TFLOP/s and no vendor's page was found",
}
