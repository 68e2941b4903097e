"""Prints the table of docs/pictures.md: `python -m tests.corpus`."""

from __future__ import annotations

import sys

from tests.corpus.maker import cases
from tests.corpus.verdict import summary

if __name__ == "__main__":
    sys.stdout.write(summary(cases()) + "\n")
