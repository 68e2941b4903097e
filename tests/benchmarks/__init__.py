"""Ratios measured side by side in one run; run one with `python -m tests.benchmarks.NAME`."""
