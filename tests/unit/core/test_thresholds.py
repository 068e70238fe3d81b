"""Thresholds and their profiles (contract H.1)."""

import pytest

from manager import catalogs
from manager.core.thresholds import (
    DEFAULTS,
    FLAGS,
    Thresholds,
    check_thresholds,
    combine,
    list_profiles,
    resolve_profile,
)
from spritemesh import files
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON

CATALOG: JSON = {
    "schemaVersion": "v1",
    "defaultProfile": "calm",
    "profiles": {
        "calm": {
            "degradedIngestLagSeconds": 10,
            "criticalIngestLagSeconds": 20.5,
            "degradedTransportFailureStreak": 1,
            "criticalTransportFailureStreak": 2,
            "description": "slow",
        },
        "brisk": {
            "degradedIngestLagSeconds": 1,
            "criticalIngestLagSeconds": 1,
            "degradedTransportFailureStreak": 1,
            "criticalTransportFailureStreak": 1,
        },
    },
}


def changed(member: str, value: JSON, *, profile: str = "calm") -> JSON:
    profiles = CATALOG["profiles"]
    return CATALOG | {"profiles": profiles | {profile: profiles[profile] | {member: value}}}


def test_profile_document_has_the_contract_order() -> None:
    document = resolve_profile(CATALOG, "c.json", "calm")
    assert list(document) == ["schemaVersion", "sourceFile", "profile", "values", "description"]
    assert list(document["values"]) == [
        "degradedIngestLagSeconds",
        "criticalIngestLagSeconds",
        "degradedTransportFailureStreak",
        "criticalTransportFailureStreak",
    ]


def test_default_profile_is_taken_without_a_name() -> None:
    assert resolve_profile(CATALOG, "c.json", "")["profile"] == "calm"


def test_description_is_dropped_when_absent() -> None:
    assert "description" not in resolve_profile(CATALOG, "c.json", "brisk")


def test_names_are_sorted() -> None:
    assert list_profiles(CATALOG, "c.json") == ["brisk", "calm"]


def test_unknown_profile_is_named() -> None:
    with pytest.raises(OpsError, match="zzz") as caught:
        resolve_profile(CATALOG, "c.json", "zzz")
    assert caught.value.reason == "unknown_profile"


@pytest.mark.parametrize(
    ("catalog", "named"),
    [
        ({"schemaVersion": "v2", "profiles": {"a": {}}}, "c.json"),
        ({"schemaVersion": "v1", "profiles": {}}, "c.json"),
        ({"schemaVersion": "v1", "profiles": []}, "c.json"),
        ({"schemaVersion": "v1", "profiles": {"a": {}}}, "defaultProfile"),
        (changed("criticalIngestLagSeconds", 5), "calm"),
        (changed("degradedIngestLagSeconds", "10"), "calm"),
        (changed("degradedIngestLagSeconds", True), "calm"),
        ([], "c.json"),
    ],
    ids=["version", "empty", "array", "no-default", "crossed", "text", "boolean", "no-object"],
)
def test_unusable_catalog_is_refused(catalog: JSON, named: str) -> None:
    with pytest.raises(OpsError, match=named) as caught:
        resolve_profile(catalog, "c.json", "")
    assert caught.value.reason == "catalog_invalid"


def test_given_threshold_wins_over_the_profile() -> None:
    profile = resolve_profile(CATALOG, "c.json", "brisk")
    given = {"critical_ingest_lag": 7, "critical_heartbeat_lag": None}
    assert combine(profile, given) == DEFAULTS._replace(
        degraded_ingest_lag=1, critical_ingest_lag=7, degraded_streak=1, critical_streak=1
    )


def test_fractional_profile_value_is_printed_but_refused_in_use() -> None:
    profile = resolve_profile(CATALOG, "c.json", "calm")
    assert profile["values"]["criticalIngestLagSeconds"] == 20.5
    with pytest.raises(OpsError, match="criticalIngestLagSeconds"):
        combine(profile, {})


def test_overridden_fraction_does_not_matter() -> None:
    assert combine(resolve_profile(CATALOG, "c.json", "calm"), {"critical_ingest_lag": 30})


@pytest.mark.parametrize("kind", ["ingest_lag", "heartbeat_lag", "streak"])
def test_critical_below_degraded_names_the_flag(kind: str) -> None:
    thresholds = DEFAULTS._replace(**{f"critical_{kind}": 0})
    with pytest.raises(OpsError, match=FLAGS[f"critical_{kind}"]):
        check_thresholds(thresholds)


def test_equal_thresholds_are_allowed() -> None:
    check_thresholds(Thresholds(5, 5, 6, 6, 7, 7))


def test_shipped_catalog_holds_the_contract_values() -> None:
    catalog = files.read_json(catalogs.THRESHOLD_PROFILES)
    values = {
        name: list(resolve_profile(catalog, "x", name)["values"].values())
        for name in list_profiles(catalog, "x")
    }
    assert values == {
        "balanced": [300, 900, 2, 4],
        "relaxed": [600, 1800, 3, 6],
        "strict": [120, 300, 1, 2],
    }
    assert resolve_profile(catalog, "x", "")["profile"] == "balanced"
