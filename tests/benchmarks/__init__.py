"""Benchmarks: each measures a ratio side by side in one run. `python -m tests.benchmarks.NAME` starts one."""
