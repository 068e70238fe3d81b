"""When a lag or a streak is bad: thresholds, and the profiles that name sets of them (contract H.1)."""

from collections.abc import Mapping
from typing import NamedTuple

from spritemesh.errors import OpsError, kind_of
from spritemesh.jsontext import JSON
from spritemesh.values import digits, drop, first, get, text

SCHEMA_VERSION = "v1"


class Thresholds(NamedTuple):
    """At or above which value a loop is degraded or critical. Lags in seconds, streaks in failed passes."""

    degraded_ingest_lag: int = 300
    critical_ingest_lag: int = 900
    degraded_heartbeat_lag: int = 120
    critical_heartbeat_lag: int = 300
    degraded_streak: int = 2
    critical_streak: int = 4


DEFAULTS = Thresholds()

# Field -> flag that sets it, degraded before critical of each pair.
FLAGS: dict[str, str] = {
    "degraded_ingest_lag": "--degraded-ingest-lag-seconds",
    "critical_ingest_lag": "--critical-ingest-lag-seconds",
    "degraded_heartbeat_lag": "--degraded-heartbeat-lag-seconds",
    "critical_heartbeat_lag": "--critical-heartbeat-lag-seconds",
    "degraded_streak": "--degraded-transport-failure-streak",
    "critical_streak": "--critical-transport-failure-streak",
}

# Member of a profile -> field. Profiles do not set the heartbeat (contract G.4).
_PROFILE_FIELDS: dict[str, str] = {
    "degradedIngestLagSeconds": "degraded_ingest_lag",
    "criticalIngestLagSeconds": "critical_ingest_lag",
    "degradedTransportFailureStreak": "degraded_streak",
    "criticalTransportFailureStreak": "critical_streak",
}


def check_thresholds(thresholds: Thresholds) -> None:
    """Raise OpsError `invalid_request`, naming the flags, when a critical value is below its degraded one."""
    for kind in ("ingest_lag", "heartbeat_lag", "streak"):
        degraded, critical = f"degraded_{kind}", f"critical_{kind}"
        low, high = getattr(thresholds, degraded), getattr(thresholds, critical)
        if high < low:
            raise OpsError(
                "invalid_request",
                f"{FLAGS[critical]} ({high}) must not be below {FLAGS[degraded]} ({low})",
                field=FLAGS[critical],
            )


def list_profiles(catalog: JSON, source_file: str) -> list[str]:
    """Names of the profiles in `catalog`, sorted. Raises OpsError `catalog_invalid`."""
    return sorted(_profiles(catalog, source_file))


def has_profile(catalog: JSON, source_file: str, name: str) -> bool:
    """Whether `catalog` holds the profile `name`; of the catalog itself no more is asked than an object
    `profiles` (contract H.3). Raises OpsError `catalog_invalid`."""
    profiles = get(catalog, "profiles")
    if not isinstance(profiles, dict):
        raise OpsError(
            "catalog_invalid", f"{source_file}: profiles must be an object, found {kind_of(profiles)}"
        )
    return name in profiles


def resolve_profile(catalog: JSON, source_file: str, name: str) -> dict[str, JSON]:
    """The document of `threshold-profile` for the profile `name`, or for the default one when empty.

    source_file: path of the catalog as given; it is shown, and named in messages.
    Raises OpsError `catalog_invalid` or, naming the profile, `unknown_profile`.
    """
    profiles = _profiles(catalog, source_file)
    chosen = name or text(first(get(catalog, "defaultProfile"), ""))
    if not chosen:
        raise OpsError("catalog_invalid", f"{source_file} has no defaultProfile and no profile was named")
    if chosen not in profiles:
        raise OpsError("unknown_profile", f"profile {chosen} is not in {source_file}", field="profile")
    profile = profiles[chosen]
    values: dict[str, JSON] = {}
    for member in _PROFILE_FIELDS:
        value = get(profile, member)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise OpsError(
                "catalog_invalid",
                f"{source_file}: profile {chosen}: {member} must be a number, found {kind_of(value)}",
            )
        values[member] = value
    for kind in ("IngestLagSeconds", "TransportFailureStreak"):
        if values[f"critical{kind}"] < values[f"degraded{kind}"]:
            raise OpsError(
                "catalog_invalid", f"{source_file}: profile {chosen}: critical{kind} is below degraded{kind}"
            )
    return drop(
        {
            "schemaVersion": SCHEMA_VERSION,
            "sourceFile": source_file,
            "profile": chosen,
            "values": values,
            "description": get(profile, "description"),
        }
    )


def combine(profile: JSON, given: Mapping[str, int | None]) -> Thresholds:
    """Thresholds of a pass: each given one, else the profile's, else the default. Checked.

    profile: document of resolve_profile. given: field of Thresholds -> value of its flag.
    Raises OpsError `catalog_invalid` for a profile value that is no whole number, or as
    check_thresholds.
    """
    chosen: dict[str, int] = {}
    for member, field in _PROFILE_FIELDS.items():
        if given.get(field) is None:
            value = digits(get(profile, "values", member))
            if value is None:
                raise OpsError(
                    "catalog_invalid",
                    f"profile {get(profile, 'profile')}: {member} must be a whole number, not negative",
                )
            chosen[field] = value
    chosen.update({field: value for field, value in given.items() if value is not None})
    thresholds = DEFAULTS._replace(**chosen)
    check_thresholds(thresholds)
    return thresholds


def _profiles(catalog: JSON, source_file: str) -> dict[str, JSON]:
    if get(catalog, "schemaVersion") != SCHEMA_VERSION:
        raise OpsError("catalog_invalid", f"{source_file}: schemaVersion must be '{SCHEMA_VERSION}'")
    profiles = get(catalog, "profiles")
    if not isinstance(profiles, dict) or not profiles:
        raise OpsError("catalog_invalid", f"{source_file}: profiles must be an object that is not empty")
    return profiles
