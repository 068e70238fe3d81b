"""Summary of the last passes (contract H.2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core.summary import parse_rows, summarize
from spritemesh.jsontext import JSON


def summary(rows: list[JSON], controls: list[JSON] | None = None, *, damaged: int = 0) -> JSON:
    return summarize(
        rows,
        controls or [],
        now=0,
        repo_path="/repo",
        loop_id="alpha",
        reconcile_file="/r",
        control_file="/c",
        window=200,
        damaged=damaged,
    )


def row(status: str = "success", health: str = "healthy", codes: list[str] | None = None) -> JSON:
    return {"status": status, "healthStatus": health, "healthReasonCodes": codes or [], "durationSeconds": 1}


def test_nothing_observed_recommends_balanced_with_low_confidence() -> None:
    document = summary([])
    assert (document["recommendedProfile"], document["confidence"]) == ("balanced", "low")
    assert document["observed"]["durationSeconds"] == {"p50": None, "p95": None, "max": None}
    assert document["observed"]["health"]["criticalRate"] == 0


@pytest.mark.parametrize(
    ("rows", "controls", "recommended"),
    [
        ([row()] * 8 + [row(health="critical")] * 2, [], "relaxed"),
        ([row()] * 3 + [row("failed", "degraded")], [], "relaxed"),
        ([row()] * 20, [], "strict"),
        ([row()] * 19 + [row(health="degraded")], [], "strict"),
        ([row()] * 18 + [row(health="degraded")] * 2, [], "balanced"),
        ([row()] * 20, [{"status": "ambiguous"}], "balanced"),
        ([row()] * 20, [{"reasonCode": "control_ambiguous"}], "balanced"),
        ([row()] * 30 + [row("failed")], [], "balanced"),
        ([row()] * 30 + [row(health="critical")], [], "balanced"),
    ],
    ids=[
        "critical-rate",
        "failed-rate",
        "all-well",
        "degraded-at-limit",
        "degraded-over",
        "ambiguous",
        "ambiguous-by-reason",
        "failed-over",
        "critical-some",
    ],
)
def test_recommendation_follows_the_rates(rows: list[JSON], controls: list[JSON], recommended: str) -> None:
    assert summary(rows, controls)["recommendedProfile"] == recommended


@pytest.mark.parametrize(
    ("count", "confidence"), [(29, "low"), (30, "medium"), (99, "medium"), (100, "high")]
)
def test_confidence_grows_with_attempts(count: int, confidence: str) -> None:
    assert summary([row()] * count)["confidence"] == confidence


def test_codes_are_sorted_by_count_and_then_backwards() -> None:
    rows = [row(codes=["a", "b"]), row(codes=["c"]), row(codes=["c"])]
    assert summary(rows)["observed"]["health"]["reasonCodeFrequency"] == [
        {"code": "c", "count": 2},
        {"code": "b", "count": 1},
        {"code": "a", "count": 1},
    ]


def test_numeric_strings_count_as_durations() -> None:
    rows: list[JSON] = [{"durationSeconds": value} for value in ("4", " 07 ", "0", "x", "", None, True, 2)]
    assert summary(rows)["observed"]["durationSeconds"] == {"p50": 2, "p95": 4, "max": 7}


def test_damaged_lines_are_told_last_and_only_when_there_are_some() -> None:
    assert "damagedLines" not in summary([row()])["observed"]
    assert list(summary([row()], damaged=2)["observed"])[-1] == "damagedLines"


def test_damaged_lines_are_skipped_and_counted() -> None:
    assert parse_rows([b'{"a":1}', b"{broken", b"5", b"", b'"x"', b"{}"]) == ([{"a": 1}, {}], 3)


@given(st.lists(st.tuples(st.sampled_from(["success", "failed"]), st.sampled_from(["healthy", "critical"]))))
def test_counts_and_rates_agree(outcomes: list[tuple[str, str]]) -> None:
    observed = summary([row(status, health) for status, health in outcomes])["observed"]
    assert observed["reconcileAttempts"] == len(outcomes)
    assert observed["reconcileSuccessCount"] + observed["reconcileFailedCount"] == len(outcomes)
    assert 0 <= observed["health"]["criticalRate"] <= 1


@given(st.lists(st.integers(0, 10_000), min_size=1))
def test_percentiles_are_members_in_order(durations: list[int]) -> None:
    found = summary([{"durationSeconds": value} for value in durations])["observed"]["durationSeconds"]
    assert found["p50"] <= found["p95"] <= found["max"] == max(durations)
    assert {found["p50"], found["p95"]} <= set(durations)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        *[("0", 0), ("-0.0", 0), (" 007 ", 7), ("0e5", 0), ("0.0e-3", 0)],
        *[("0-0", None), ("0.0.0", None), ("-", None), ("00.", None), ("", None), ("x0", None)],
    ],
)
def test_text_counts_as_a_duration_exactly_when_it_is_one_number(text: str, duration: int | None) -> None:
    found = summary([{"durationSeconds": text}])["observed"]["durationSeconds"]["max"]
    assert found == duration
    assert (found is None) == (duration is None)
