"""The table of the corpus in docs/pictures.md is made from the corpus."""

from __future__ import annotations

from tests.corpus.maker import cases
from tests.corpus.verdict import STILL_WRONG, summary
from tests.documents import HERE


def test_the_table_is_made_from_the_corpus() -> None:
    page = (HERE / "docs" / "pictures.md").read_text(encoding="utf-8")
    assert summary(cases()) in page, "make it again: .venv/bin/python -m tests.corpus"


def test_what_is_still_wrong_is_in_the_corpus() -> None:
    assert {(case.kind, case.group) for case in cases()} >= STILL_WRONG


def test_the_corpus_is_the_same_in_every_run() -> None:
    noise = [case for case in cases() if case.name.startswith("JPEG baseline 4:2:0, noise")]
    again = [case for case in cases() if case.name.startswith("JPEG baseline 4:2:0, noise")]
    assert [case.make() for case in noise] == [case.make() for case in again]
    assert len({case.make() for case in noise}) == len(noise) == 3
