"""The faults and hostile inputs of benchmarks/faults.py, by kind. Each module registers its cases in `cases`."""
