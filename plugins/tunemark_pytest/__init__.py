"""A pytest plugin: the fixture `tunemark`, whose experiments become benchmarks of pytest-benchmark."""
