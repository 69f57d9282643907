"""Strategies that span a mesh of processes, in the worker: data, tensor and pipeline parallelism and their products."""
