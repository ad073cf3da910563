"""A verdict needs its evidence and its record; what other settings change is said, not raised."""

import csv
import re

import numpy as np
import pytest
import torch

from course_utils import claims, runtime
from course_utils.claims import STATUSES, Claim, ClaimError, Verdict, record, verdict, verdicts

RECORD = {
    "X01": Claim("X01", "77", "Cats <b>& dogs</b>", "holds"),
    "X02": Claim("X02", "77", "It rains", ""),
    "X03": Claim("X03", "78", "It costs $12M", "cannot be tested here"),
    "X04": Claim("X04", "77", "The sun sets", "holds with a caveat"),
}
OTHER_SETTINGS = pytest.mark.parametrize(
    ("name", "value"), [("COURSE_MODELS", "hub"), ("COURSE_SIZE", "large")]
)


@pytest.fixture(autouse=True)
def small_record(monkeypatch):
    """Four claims, no verdict given yet, and the default settings."""
    monkeypatch.setattr(claims, "record", lambda: RECORD)
    monkeypatch.setattr(claims, "_given", {})
    monkeypatch.delenv("COURSE_MODELS", raising=False)
    monkeypatch.delenv("COURSE_SIZE", raising=False)


def cells(table):
    """The verdict table's cells, claim by claim."""
    rows = re.findall(r"<tr>(.*?)</tr>", table._repr_html_())[1:]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]


@pytest.mark.parametrize("evidence", [True, np.True_, np.bool_(3 > 2), torch.tensor(True), 1], ids=repr)
def test_true_evidence_gives_a_card(evidence):
    card = verdict("X01", "holds", because="measured", evidence=evidence)
    assert repr(card) == "Claim X01 · holds: measured"
    assert card.note == ""


@pytest.mark.parametrize("evidence", [False, np.False_, np.bool_(3 < 2), torch.tensor(False), 0], ids=repr)
def test_false_evidence_raises_and_gives_no_verdict(evidence):
    with pytest.raises(ClaimError, match="claim X01: the evidence for 'holds' does not hold"):
        verdict("X01", "holds", because="measured", evidence=evidence)
    assert [status for *_, status in verdicts("77").rows] == ["not run yet"] * 3


@pytest.mark.parametrize("status", [s for s in STATUSES if s not in ("holds", "cannot be tested here")])
def test_a_status_other_than_the_recorded_one_raises(status):
    said = f"claim X01: data/claims.csv records 'holds', the page says {status!r}"
    with pytest.raises(ClaimError, match=said):
        verdict("X01", status, because="measured", evidence=True)


def test_a_claim_without_a_record_raises():
    with pytest.raises(ClaimError, match="records 'no verdict', the page says 'holds'"):
        verdict("X02", "holds", because="measured", evidence=True)


def test_a_claim_error_fails_a_test_run():
    assert issubclass(ClaimError, AssertionError)


@pytest.mark.parametrize(
    ("claim", "status", "evidence", "message"),
    [
        ("Z99", "holds", True, "claim must be an id of data/claims.csv such as 'A12', got 'Z99'"),
        ("X01", "true", True, "status must be one of 'holds', .*, got 'true'"),
        ("X01", "holds", None, "evidence must be given, .* X01"),
        ("X03", "cannot be tested here", True, "evidence must be given, and be None only where .* X03"),
    ],
)
@pytest.mark.parametrize("size", ["small", "large"])
def test_what_is_wrong_under_any_settings_is_refused(claim, status, evidence, message, size, monkeypatch):
    monkeypatch.setenv("COURSE_SIZE", size)
    with pytest.raises(ValueError, match=message):
        verdict(claim, status, because="measured", evidence=evidence)


def test_what_cannot_be_tested_needs_no_evidence():
    card = verdict("X03", "cannot be tested here", because="the bill is not public", evidence=None)
    assert repr(card) == "Claim X03 · cannot be tested here: the bill is not public"


@OTHER_SETTINGS
@pytest.mark.parametrize(
    ("status", "evidence", "problem"),
    [("holds", False, "does not hold"), ("false as stated", True, "records 'holds'")],
)
def test_other_settings_say_what_differs(name, value, status, evidence, problem, monkeypatch):
    monkeypatch.setenv(name, value)
    card = verdict("X01", status, because="measured", evidence=evidence)
    assert str(runtime.settings()) in card.note
    assert problem in card.note
    assert card.note in repr(card)
    assert problem in card._repr_html_().replace("&#x27;", "'")


@OTHER_SETTINGS
def test_other_settings_that_agree_add_nothing(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    assert verdict("X01", "holds", because="measured", evidence=True).note == ""


@pytest.mark.parametrize("status", STATUSES)
def test_a_card_escapes_all_it_is_told(status):
    shown = Verdict(RECORD["X01"], status, "a < b & c", "<script>")._repr_html_()
    assert "Cats &lt;b&gt;&amp; dogs&lt;/b&gt;" in shown
    assert "a &lt; b &amp; c" in shown
    assert "&lt;script&gt;" in shown
    assert set(re.findall(r"</?(\w+)", shown)) == {"div", "em", "strong", "br"}  # its own tags alone
    assert STATUSES[status] in shown
    assert f">{status}<" in shown


def test_statuses_can_be_told_apart_on_white():
    """The colours differ and have WCAG's contrast of 4.5 to 1 for text."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    assert len(set(STATUSES.values())) == len(STATUSES)
    assert all(1.05 / (luminance(colour) + 0.05) >= 4.5 for colour in STATUSES.values())


def test_the_table_tells_what_this_run_gave_in_the_records_order():
    verdict("X04", "holds with a caveat", because="measured", evidence=True)
    verdict("X03", "cannot be tested here", because="of another page", evidence=None)
    table = verdicts("77")
    assert [(id, status) for id, _, status in table.rows] == [
        ("X01", "not run yet"),
        ("X02", "not run yet"),
        ("X04", "holds with a caveat"),
    ]
    assert cells(table)[0] == ["X01", "Cats &lt;b&gt;&amp; dogs&lt;/b&gt;", "not run yet"]
    assert [row[2] for row in cells(table)] == [status for *_, status in table.rows]
    assert [line.split("  ")[0] for line in repr(table).splitlines()] == ["X01", "X02", "X04"]
    verdict("X01", "holds", because="measured", evidence=True)
    assert verdicts("77").rows[0][2] == "holds"
    assert table.rows[0][2] == "not run yet"  # a table shows its own moment


def test_a_page_without_claims_has_no_table():
    with pytest.raises(ValueError, match="notebook must be one that has claims, such as '02', got '99'"):
        verdicts("99")


def test_the_record_holds_eighty_claims_in_order():
    numbers = {"A": 26, "B": 11, "C": 8, "D": 20, "E": 15}
    expected = [f"{letter}{i:02}" for letter, n in numbers.items() for i in range(1, n + 1)]
    with (runtime.DATA / "claims.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "notebook", "claim", "verdict"]
    assert [row[0] for row in rows[1:]] == expected
    assert len(expected) == 80
    assert list(record()) == expected


def test_the_record_allows_known_verdicts_and_pages_only():
    for claim in record().values():
        assert claim.verdict in {"", *STATUSES}, claim
        assert re.fullmatch(r"\d\d[a-z]?", claim.notebook), claim
        assert claim.claim == claim.claim.strip() != "", claim
