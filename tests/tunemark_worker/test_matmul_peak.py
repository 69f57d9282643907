"""The measured peak: bounded in time, and without traces in torch's settings."""

import torch

from tunemark_worker import matmul_peak


def test_the_best_of_all_paths_is_the_peak_and_settings_are_restored():
    before = torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled
    found = matmul_peak.measure_peak("fp32", torch.float32, "cpu", lambda: None, limit_s=0.2)
    assert found["flops"] == max(found["tried"].values()) == found["tried"][found["path"]] > 1e9
    assert (torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled) == before


def test_a_path_of_lower_precision_is_not_fp32():
    def rounded(a, b):
        return torch.mm(a.bfloat16(), b.bfloat16()).float()

    assert matmul_peak._is_fp32(torch.mm, "cpu")
    assert not matmul_peak._is_fp32(rounded, "cpu")


def test_flops_are_two_n_cubed_over_the_shortest_time():
    # The clock advances a second whenever it is read: each repeat takes 1 s.
    ticks = iter(range(100))
    flops = matmul_peak._best_flops(torch.mm, 8, torch.float32, "cpu", lambda: None, 1e9, lambda: float(next(ticks)))
    assert flops == 2 * 8**3
