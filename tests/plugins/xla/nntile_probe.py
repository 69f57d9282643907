"""Run in an interpreter with torch_nntile: probes and measures a real `privateuse1` backend with three drivers.

Prints one line of JSON. Whole training steps are beyond this backend: AdamW's operators are missing in it.
"""

import functools
import json
import time

import torch
import torch_nntile

from tunemark_worker.matmul_peak import measure_peak
from tunemark_worker.queue_probe import probe_queue


class DoesNothing:
    is_synchronous = False

    def synchronize(self):
        pass


class OnlyStarts(DoesNothing):
    def end_step(self):
        torch_nntile.execute()

    def synchronize(self):
        torch_nntile.execute()


class Waits(OnlyStarts):
    def synchronize(self):
        torch_nntile.execute()
        torch_nntile.wait()


def main():
    torch_nntile.init_context()
    found = {}
    for kind in (Waits, OnlyStarts, DoesNothing):
        device = kind()
        peak = functools.partial(measure_peak, "fp32", torch.float32, "nntile", device.synchronize, limit_s=1.0)
        found[kind.__name__] = {"probe": probe_queue(device, "nntile", time.perf_counter), "flops": peak()["flops"]}
    found["cpu"] = {"flops": measure_peak("fp32", torch.float32, "cpu", lambda: None, limit_s=1.0)["flops"]}
    print(json.dumps(found), flush=True)


main()
