"""For how long certificates are good, and what that means to whoever renews them."""

import calendar
import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from sprite_agent.probe.steps import Found, warn, well
from spritemesh.times import format_utc
from spritemesh.tls import certificates_in

_DAY_SECONDS = 86_400
_HOUR_SECONDS = 3600
_WARN_SECONDS = 14 * _DAY_SECONDS
# Of a life of days or hours: whoever renews in time has done it by then.
_WARN_SHARE = 1 / 3
# Tags of DER.
_VERSION, _UTC_TIME = 0xA0, 0x17


class Lifetime(NamedTuple):
    """Of one certificate; epoch seconds."""

    begins: float
    ends: float

    def fault(self, now: float) -> str:
        """Why it is not valid now: a predicate; "" when it is."""
        if now > self.ends:
            return f"has expired, {format_utc(self.ends)}"
        return f"is not valid before {format_utc(self.begins)}" if now < self.begins else ""

    def is_ending(self, now: float) -> bool:
        """Whether somebody should be told: 14 days before the end, or when a third of its life is left."""
        return self.ends - now < min(_WARN_SECONDS, (self.ends - self.begins) * _WARN_SHARE)

    def told(self, now: float) -> str:
        """For how long it is good yet."""
        left = self.ends - now
        for seconds, unit in ((_DAY_SECONDS, "days"), (_HOUR_SECONDS, "hours")):
            if left >= 2 * seconds - 60:
                return f"good for {left / seconds:.0f} {unit}"
        return f"good for {max(0.0, left) / 60:.0f} minutes"


class Judged(Protocol):
    """Certificates that are judged together; the methods mean the same as those of `Lifetime`."""

    def fault(self, now: float) -> str:
        """Why they are of no use now: a predicate; "" when they are."""
        ...

    def is_ending(self, now: float) -> bool:
        """Whether somebody should be told."""
        ...

    def told(self, now: float) -> str:
        """For how long they are good yet."""
        ...


class Chain(NamedTuple):
    """A certificate, and those between it and an authority: all of them have to be valid."""

    lifetimes: tuple[Lifetime, ...]

    def fault(self, now: float) -> str:
        """That of the first which has one."""
        return next(filter(None, (lifetime.fault(now) for lifetime in self.lifetimes)), "")

    def is_ending(self, now: float) -> bool:
        """Of the one that ends first."""
        return _first_to_end(self.lifetimes).is_ending(now)

    def told(self, now: float) -> str:
        """Of the one that ends first."""
        return _first_to_end(self.lifetimes).told(now)


class Authorities(NamedTuple):
    """Of one file: each is good for those whom it certified, so that one that is valid is of use."""

    lifetimes: tuple[Lifetime, ...]

    def fault(self, now: float) -> str:
        """That of the first, when all have one."""
        faults = [lifetime.fault(now) for lifetime in self.lifetimes]
        return faults[0] if all(faults) else ""

    def is_ending(self, now: float) -> bool:
        """Whether that is so of one, or one is of no use now."""
        return any(lifetime.fault(now) or lifetime.is_ending(now) for lifetime in self.lifetimes)

    def told(self, now: float) -> str:
        """Of the one that ends first of those that are valid, and how many are not."""
        valid = [lifetime for lifetime in self.lifetimes if not lifetime.fault(now)]
        words = _first_to_end(valid).told(now)
        faults = [fault for fault in (lifetime.fault(now) for lifetime in self.lifetimes) if fault]
        if faults:
            words += f"; of its {len(self.lifetimes)} authorities {len(faults)} not: one {faults[0]}"
        return words


def lifetime_of(certificate: Mapping[str, Any]) -> Lifetime:
    """Of a certificate as the ssl module decodes it."""
    begins, ends = (
        float(ssl.cert_time_to_seconds(str(certificate[name]))) for name in ("notBefore", "notAfter")
    )
    return Lifetime(begins, ends)


def lifetimes_in(data: bytes) -> tuple[Lifetime, ...]:
    """Of each certificate in a file. data: PEM that was checked (spritemesh.tls)."""
    return tuple(_lifetime(ssl.PEM_cert_to_DER_cert(text.decode("ascii"))) for text in certificates_in(data))


def faults_of(lifetimes: Mapping[str, Judged]) -> list[str]:
    """What is wrong now, a sentence each. lifetimes: as for `judge_lifetimes`."""
    now = time.time()
    return [f"{name}{found.fault(now)}" for name, found in lifetimes.items() if found.fault(now)]


def judge_lifetimes(told: str, lifetimes: Mapping[str, Judged]) -> Found:
    """What certificates mean that are in use. told: begins the detail. lifetimes: by name, which begins the
    words on it."""
    now = time.time()
    words = [f"{name}{found.fault(now) or found.told(now)}" for name, found in lifetimes.items()]
    detail = "; ".join([*filter(None, [told]), *words])
    if any(found.fault(now) or found.is_ending(now) for found in lifetimes.values()):
        return warn("certificate_expiring", detail)
    return well(detail)


def _first_to_end(lifetimes: Iterable[Lifetime]) -> Lifetime:
    return min(lifetimes, key=lambda lifetime: lifetime.ends)


def _lifetime(der: bytes) -> Lifetime:
    """The ssl module decodes only certificates that were shown in a handshake: this reads the member
    `validity` (RFC 5280, 4.1), which comes fourth after a version that may be left out."""
    _, at, _ = _element(der, 0)
    _, at, _ = _element(der, at)
    for _ in range(4 if der[at] == _VERSION else 3):
        _, _, at = _element(der, at)
    _, at, _ = _element(der, at)
    times = []
    for _ in range(2):
        tag, start, at = _element(der, at)
        text = der[start:at].decode("ascii")
        if tag == _UTC_TIME:
            text = ("19" if text >= "50" else "20") + text
        times.append(float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))))
    return Lifetime(*times)


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the content of the element at a place."""
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[at + 2 : start])
    return tag, start, start + length
