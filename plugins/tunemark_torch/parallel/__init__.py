"""In the worker: data, tensor and pipeline parallelism and their products, over a mesh of processes."""
