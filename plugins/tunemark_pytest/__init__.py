"""A pytest plugin: the fixture `tunemark`, whose runs are recorded as benchmarks of pytest-benchmark."""
