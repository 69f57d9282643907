"""Devices without torch: sizes, limits and launches, on file trees written by us."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tunemark.errors import BadExperiment
from tunemark_torch.plugin import (
    CpuDevice,
    CudaDevice,
    make_gpu_accelerator,
    parse_amd_smi,
    parse_nvidia_smi,
    tunemark_strategies,
)
from tunemark_torch.runtime import RocmRuntime

NONE, DDP = tunemark_strategies()[:2]


@pytest.fixture
def root(tmp_path):
    files = {
        "proc/cpuinfo": "processor : 0\nmodel name\t: A Processor\n",
        "proc/meminfo": "MemTotal:       16 kB\n",
        "proc/self/cgroup": "0::/job\n",
        "sys/fs/cgroup/job/cpu.max": "100000 100000\n",
        "sys/fs/cgroup/cpu.max": "max 100000\n",
        "sys/fs/cgroup/memory.max": "8192\n",
        "dev/nvidia0": "",
        "dev/nvidia1": "",
        "dev/nvidiactl": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_quota_limits_the_cores_and_more_is_oversubscription(root):
    cpu = CpuDevice(root, {})
    assert [a.name for a in cpu.accelerators()] == [cpu.default_size()] == ["1"]
    one, two = cpu.accelerator("1"), cpu.accelerator("2")
    assert (one.chip, one.memory_bytes, one.oversubscribed) == ("core of A Processor", 8192, False)
    assert (two.chips, two.oversubscribed) == (2, True)
    assert cpu.accelerator("many") is None


def test_one_process_of_threads_or_processes_of_one_thread(root):
    cpu = CpuDevice(root, {})
    whole = cpu.launch(cpu.accelerator("2"), NONE)
    split = cpu.launch(cpu.accelerator("2"), DDP)
    assert (whole.processes, whole.threads, whole.environment["OMP_NUM_THREADS"]) == (1, 2, "2")
    assert (split.processes, split.threads, len(split.options["cores"])) == (2, 1, 2)
    assert "mmap_max=0" in whole.environment["GLIBC_TUNABLES"]
    assert (
        "GLIBC_TUNABLES" not in CpuDevice(root, {"GLIBC_TUNABLES": ""}).launch(cpu.accelerator("1"), NONE).environment
    )


def test_gpus_are_found_by_their_device_files_and_hidden_by_the_variable(root):
    assert CudaDevice(root, {}).accelerator("3").oversubscribed
    assert len(CudaDevice(root, {"CUDA_VISIBLE_DEVICES": "1"}).accelerators()) == 1
    assert CudaDevice(root, {"CUDA_VISIBLE_DEVICES": ""}).accelerators() == []
    cuda = CudaDevice(root, {})
    none = CudaDevice(root, {"CUDA_VISIBLE_DEVICES": ""}).accelerator("8")
    assert (none.chips, none.is_present, none.oversubscribed, none.memory_bytes) == (8, False, True, None)
    assert cuda.launch(cuda.accelerator("2"), DDP).processes == 2
    with pytest.raises(BadExperiment, match="cannot use 2 GPUs"):
        cuda.launch(cuda.accelerator("2"), NONE)


def test_nvidia_smi_is_read():
    assert parse_nvidia_smi("NVIDIA H200, 143771\nNVIDIA GB10, [N/A]\n") == [
        ("NVIDIA H200", 143771 * 2**20),
        ("NVIDIA GB10", None),
    ]


def test_known_gpus_have_the_peak_of_their_data_sheet_and_others_none():
    two = make_gpu_accelerator([("NVIDIA H200", 143771 * 2**20)] * 2, 2)
    assert two.peak_flops["bf16"] == pytest.approx(2 * 989.4e12)
    assert "nvidia.com" in two.source
    assert make_gpu_accelerator([("NVIDIA H200", None), ("NVIDIA L4", None)], 2).peak_flops == {}
    # Its clock can pass the rated one, so that its peak is no bound.
    assert make_gpu_accelerator([("NVIDIA GeForce RTX 4090", None)], 1).peak_flops == {}


@pytest.mark.parametrize("module", ["tunemark_torch.plugin", "tunemark_mistral.plugin"])
def test_the_parents_side_imports_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- AMD's

_FAKES = Path(__file__).parents[2] / "fakes"


@pytest.fixture
def amd_smi(monkeypatch, tmp_path):
    """The program `amd-smi` for two dies, as the vendor documents what it prints, and no `nvidia-smi`."""
    monkeypatch.setenv("PATH", f"{_FAKES / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}/bin")
    monkeypatch.chdir(tmp_path)
    return lambda **wrong: monkeypatch.setenv("FAKE_GPUS", str(wrong).replace("'", '"').replace("True", "true"))


def test_dies_are_found_by_amd_smi_and_named_for_what_they_are(amd_smi, tmp_path):
    amd_smi()
    rocm = CudaDevice(tmp_path, {}, is_rocm=True)
    assert (rocm.name, rocm.runtime) == ("rocm", "tunemark_torch.runtime:RocmRuntime")
    assert [(a.name, a.chip, a.memory_bytes) for a in rocm.accelerators()] == [
        ("1", "AMD Instinct MI250X", 64 << 30),
        ("2", "AMD Instinct MI250X", 128 << 30),
    ]
    amd_smi(package=True)
    two = rocm.accelerator("2")
    # A package is two dies, and each has half of its peak: 383 TFLOP/s in bf16 (AMD's data sheet of the MI250X).
    assert two.chip == "AMD Instinct MI250X GCD"
    assert two.peak_flops["bf16"] == pytest.approx(383e12, rel=0.01)
    assert rocm.launch(two, DDP).processes == 2


def test_rocm_is_watched_by_amds_library_under_the_names_that_hide_dies(amd_smi, tmp_path):
    amd_smi()
    seen = {}
    for name, value in {"HIP_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "1,0"}.items():
        rocm = CudaDevice(tmp_path, {name: value}, is_rocm=True)
        one = rocm.monitor_target(rocm.accelerator("1"))
        seen[name] = (one.monitor, one.devices, len(rocm.accelerators()))
    assert seen == {
        "HIP_VISIBLE_DEVICES": ("amdsmi", ("1",), 1),
        "ROCR_VISIBLE_DEVICES": ("amdsmi", ("1",), 2),
    }


def test_dies_without_the_program_are_found_by_the_drivers_nodes(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    for n, simds in enumerate((0, 440, 440)):
        node = tmp_path / f"sys/class/kfd/kfd/topology/nodes/{n}/properties"
        node.parent.mkdir(parents=True)
        node.write_text(f"cpu_cores_count 0\nsimd_count {simds}\n")
    assert [a.chip for a in CudaDevice(tmp_path, {}, is_rocm=True).accelerators()] == ["AMD GPU", "AMD GPU"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"gpu": 0, "asic": {"market_name": "AMD Instinct MI300X", "oam_id": 2}, "vram": {"size": {"value": 196592, '
         '"unit": "MB"}}}]', [("AMD Instinct MI300X", 196592 << 20)]),
        ('{"gpu_data": [{"asic": {"market_name": "X", "oam_id": "N/A"}, "vram": {"size": "N/A"}},'
         '{"asic": {"market_name": "X", "oam_id": "N/A"}, "vram": "N/A"}]}', [("X", None), ("X", None)]),
        ('[{"asic": {"market_name": "X", "oam_id": 1}, "vram": {"size": 64}},'
         '{"asic": {"market_name": "X", "oam_id": 1}, "vram": {}}]', [("X GCD", 64 << 20), ("X GCD", None)]),
        ("", []),
        ("[1]", []),
        ('{"error": "no driver"}', []),
    ],
)  # fmt: skip
def test_what_amd_smi_prints_is_read_or_is_nothing(text, found):
    assert parse_amd_smi(text) == found


def test_a_torch_that_is_not_amds_is_refused_in_the_worker():
    with pytest.raises(RuntimeError, match="not for ROCm"):
        RocmRuntime()


def test_rocm_is_driven_as_torch_drives_cuda(monkeypatch):
    """By a torch that says it is built for HIP, its calls answered as documented."""
    calls = []
    properties = SimpleNamespace(name="AMD Instinct MI250X", total_memory=64 << 30)
    monkeypatch.setattr(torch.version, "hip", "6.3.42131")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(str(device)))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(f"synchronize {device}"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    threads = torch.get_num_threads()
    rocm = RocmRuntime()
    place = rocm.open(SimpleNamespace(threads=threads, processes=1, data_ranks=1, device_options={}))
    rocm.synchronize()
    assert (place.device, place.ranks, rocm.is_synchronous) == ("cuda:0", 1, False)
    assert calls == ["cuda:0", "synchronize cuda:0"]
    assert rocm.peak_memory_bytes() == 7 << 30
    assert (rocm.facts()["chip"], rocm.facts()["hip"]) == ("AMD Instinct MI250X", "6.3.42131")


# -- beyond one machine


@pytest.mark.parametrize("device", [CpuDevice(), CudaDevice(), CudaDevice(is_rocm=True)])
def test_a_size_beyond_one_machine_is_hosts_times_devices(device):
    size = device.remote_accelerator("2x8")
    assert (size.name, size.chips, size.nodes) == ("2x8", 16, 2)
    launch = device.remote_launch(size, DDP)
    assert (launch.processes, launch.nodes) == (16, 2)
    plain = device.remote_accelerator("16")
    assert (plain.chips, plain.nodes, device.remote_launch(plain, DDP).nodes) == (16, None, None)
    for wrong in ("0x8", "2x", "x8", "2x8x2", "2*8"):
        assert device.remote_accelerator(wrong) is None
    with pytest.raises(BadExperiment, match="it is one process"):
        device.remote_launch(size, NONE)
    # Here there is one host.
    assert device.accelerator("2x8") is None
