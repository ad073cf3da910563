"""The source articles' claims and what the pages found: one record, one card a claim, one table a page."""

from __future__ import annotations

import csv
import html
from dataclasses import dataclass
from functools import cache

from course_utils import runtime

STATUSES = {
    "holds": "#117733",
    "holds with a caveat": "#8a6d00",
    "false as stated": "#aa3377",
    "cannot be tested here": "#555555",
}
_given: dict[str, Verdict] = {}  # the verdicts of this run, by claim


class ClaimError(AssertionError):
    """The evidence on the page and the record in data/claims.csv disagree."""


@dataclass(frozen=True)
class Claim:
    """One row of data/claims.csv; `verdict` is empty until the claim's notebook is finished."""

    id: str
    notebook: str
    claim: str
    verdict: str


@dataclass(frozen=True)
class Verdict:
    """A claim, what we found and why, shown as a small card. `note` says what other settings changed."""

    claim: Claim
    status: str
    because: str
    note: str = ""

    def __repr__(self) -> str:
        return f"Claim {self.claim.id} · {self.status}: {self.because}{self.note and f' [{self.note}]'}"

    def _repr_html_(self) -> str:
        colour = STATUSES[self.status]
        body = f"{html.escape(self.because)}{self.note and f'<br><em>{html.escape(self.note)}</em>'}"
        return (
            f'<div style="border-left:4px solid {colour};padding:4px 12px;margin:4px 0">'
            f"<div>Claim {self.claim.id} · <em>{html.escape(self.claim.claim)}</em></div>"
            f'<div><strong style="color:{colour}">{self.status}</strong> · {body}</div></div>'
        )


@cache
def record() -> dict[str, Claim]:
    """All claims by id, as data/claims.csv records them."""
    with (runtime.DATA / "claims.csv").open(encoding="utf-8", newline="") as file:
        return {row["id"]: Claim(**row) for row in csv.DictReader(file)}


def verdict(claim: str, status: str, *, because: str, evidence: object) -> Verdict:
    """Give a claim its verdict, from evidence computed on the page.

    Args:
        claim: its id, such as "A12".
        status: one of STATUSES.
        because: the finding in a sentence.
        evidence: what must be true for the status to stand; None only where nothing can be tested.

    Raises:
        ValueError: an unknown id or status, or no evidence.
        ClaimError: the evidence is false, or the status is not the recorded one. With COURSE_MODELS or
            COURSE_SIZE changed the card says so instead, since the record describes the defaults.
    """
    row = _known(claim, status, evidence)
    _given.pop(claim, None)  # a cell run again must earn its verdict again
    problem = ""
    if evidence is not None and not bool(evidence):
        problem = f"the evidence for {status!r} does not hold"
    elif status != row.verdict:
        problem = f"data/claims.csv records {row.verdict or 'no verdict'!r}, the page says {status!r}"
    if problem and runtime.settings().is_default:
        raise ClaimError(f"claim {claim}: {problem}")
    note = f"with {runtime.settings()}: {problem}" if problem else ""
    _given[claim] = Verdict(row, status, because, note)
    return _given[claim]


def _known(claim: str, status: str, evidence: object) -> Claim:
    if claim not in record():
        raise ValueError(f"claim must be an id of data/claims.csv such as 'A12', got {claim!r}")
    if status not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(map(repr, STATUSES))}, got {status!r}")
    if (evidence is None) != (status == "cannot be tested here"):
        raise ValueError(f"evidence must be given, and be None only where nothing can be tested: {claim}")
    return record()[claim]


@dataclass(frozen=True)
class VerdictTable:
    """The claims of one notebook with the verdicts of this run, as a table."""

    rows: tuple[tuple[str, str, str], ...]  # id, claim, verdict or "not run yet"

    def __repr__(self) -> str:
        return "\n".join(f"{id}  {status:<21}  {claim}" for id, claim, status in self.rows)

    def _repr_html_(self) -> str:
        def line(cells: tuple[str, ...], tag: str) -> str:
            return (
                f"<tr>{''.join(f'<{tag} style=text-align:left>{html.escape(c)}</{tag}>' for c in cells)}</tr>"
            )

        body = "".join(line((id, claim, status), "td") for id, claim, status in self.rows)
        return f"<table>{line(('claim', 'the source articles say', 'verdict'), 'th')}{body}</table>"


def verdicts(notebook: str) -> VerdictTable:
    """What a page found on its claims: the verdicts this run has given, in the record's order.

    Raises:
        ValueError: no claim belongs to that notebook.
    """
    claims = [row for row in record().values() if row.notebook == notebook]
    if not claims:
        raise ValueError(f"notebook must be one that has claims, such as '02', got {notebook!r}")
    return VerdictTable(
        tuple((c.id, c.claim, _given[c.id].status if c.id in _given else "not run yet") for c in claims)
    )
