"""Devices without torch: sizes, limits and launches, on file trees written by us."""

import subprocess
import sys

import pytest

from tunemark.errors import BadExperiment
from tunemark_torch.plugin import Cpu, Cuda, gpus, parse_nvidia_smi, tunemark_strategies

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
    cpu = Cpu(root, {})
    assert [a.name for a in cpu.accelerators()] == [cpu.default_size()] == ["1"]
    one, two = cpu.accelerator("1"), cpu.accelerator("2")
    assert (one.chip, one.memory_bytes, one.oversubscribed) == ("core of A Processor", 8192, False)
    assert (two.chips, two.oversubscribed) == (2, True)
    assert cpu.accelerator("many") is None


def test_one_process_of_threads_or_processes_of_one_thread(root):
    cpu = Cpu(root, {})
    whole = cpu.launch(cpu.accelerator("2"), NONE)
    split = cpu.launch(cpu.accelerator("2"), DDP)
    assert (whole.processes, whole.threads, whole.environment["OMP_NUM_THREADS"]) == (1, 2, "2")
    assert (split.processes, split.threads, len(split.options["cores"])) == (2, 1, 2)
    assert "mmap_max=0" in whole.environment["GLIBC_TUNABLES"]
    assert "GLIBC_TUNABLES" not in Cpu(root, {"GLIBC_TUNABLES": ""}).launch(cpu.accelerator("1"), NONE).environment


def test_gpus_are_found_by_their_device_files_and_hidden_by_the_variable(root):
    assert Cuda(root, {}).accelerator("3").oversubscribed
    assert len(Cuda(root, {"CUDA_VISIBLE_DEVICES": "1"}).accelerators()) == 1
    assert Cuda(root, {"CUDA_VISIBLE_DEVICES": ""}).accelerators() == []
    cuda = Cuda(root, {})
    assert cuda.launch(cuda.accelerator("2"), DDP).processes == 2
    with pytest.raises(BadExperiment, match="cannot use 2 GPUs"):
        cuda.launch(cuda.accelerator("2"), NONE)


def test_nvidia_smi_is_read():
    assert parse_nvidia_smi("NVIDIA H200, 143771\nNVIDIA GB10, [N/A]\n") == [
        ("NVIDIA H200", 143771 * 2**20),
        ("NVIDIA GB10", None),
    ]


def test_known_gpus_have_the_peak_of_their_data_sheet_and_others_none():
    two = gpus([("NVIDIA H200", 143771 * 2**20)] * 2, 2)
    assert two.peak_flops["bf16"] == pytest.approx(2 * 989.4e12)
    assert "nvidia.com" in two.source
    assert gpus([("NVIDIA H200", None), ("NVIDIA L4", None)], 2).peak_flops == {}
    # Its clock can pass the rated one, so that its peak is no bound.
    assert gpus([("NVIDIA GeForce RTX 4090", None)], 1).peak_flops == {}


@pytest.mark.parametrize("module", ["tunemark_torch.plugin", "tunemark_mistral.plugin"])
def test_the_parents_side_imports_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
