"""What `serve` refuses to start with: files for TLS and signatures, and addresses that are open to all."""

import logging
import os

from sprite_agent.guard import Guard, check_exposure
from sprite_agent.probe.steps import Found, Steps, lost, skip, well
from sprite_agent.security import Address

_TLS_STEP = "tls files"
_SIGNING_STEP = "signing key"


def examine_guard(steps: Steps, guard: Guard, client: tuple[str, str]) -> str:
    """Steps over the files of a guard. client: paths of the certificate and key to ask the agent with, "" for
    the server's own; both "" where clients need none.

    The name of a step that failed, without which the agent cannot be asked; else "".
    """
    # What these say of modes is a step of its own.
    for name in ("sprite_agent", "spritemesh"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    steps.take(_TLS_STEP, lambda: _check_tls(guard, client))
    steps.take(_SIGNING_STEP, lambda: _check_keys(guard))
    names = (_TLS_STEP, _SIGNING_STEP)
    return next((name for name in names if steps.is_lost(name)), "")


def check_open(address: Address, guard: Guard, field: str) -> Found:
    """The step: whether `serve` may listen there with this guard. An agent without one is meant to be for
    this host only (--allow-unauthenticated). field: the flag of the address. Raises OpsError as
    `check_exposure`."""
    check_exposure(address, guard, allow_unauthenticated=True, field=field)
    if guard.is_open:
        return well("without token, client certificates or signatures, and for this host only")
    needed = (
        (guard.token, "a token"),
        (guard.proves_peers, "a certificate"),
        (guard.signing_key_file, "a signature"),
    )
    return well(f"who calls needs {' and '.join(name for is_needed, name in needed if is_needed)}")


def _check_tls(guard: Guard, client: tuple[str, str]) -> Found:
    """As `serve` does, and for how long the certificates are good. Raises OpsError `tls_files_invalid`."""
    if guard.tls is None:
        return skip("connections are not encrypted")
    # Late: without TLS nobody should wait for them.
    from sprite_agent.probe.lifetime import (
        Authorities,
        Chain,
        Judged,
        faults_of,
        judge_lifetimes,
        lifetimes_in,
    )
    from spritemesh.tls import Origin, client_context, present, read_pem

    guard.certificates()
    origin = Origin("--tls-cert", os.path.abspath(guard.tls.cert))
    lifetimes: dict[str, Judged] = {f"{origin} ": Chain(lifetimes_in(read_pem(origin)))}
    if guard.tls.ca:
        ca = Origin("--tls-ca", os.path.abspath(guard.tls.ca))
        lifetimes[f"{ca} "] = Authorities(lifetimes_in(read_pem(ca)))
    if any(client):
        cert, key = (
            Origin(f"--client-{part}" if given else f"--tls-{part}", os.path.abspath(given or own))
            for part, given, own in (("cert", client[0], guard.tls.cert), ("key", client[1], guard.tls.key))
        )
        data = read_pem(cert)
        present(client_context(), data, read_pem(key), cert, key)
        lifetimes[f"{cert} "] = Chain(lifetimes_in(data))
    if faults := faults_of(lifetimes):
        return lost(
            "tls_files_invalid",
            "; ".join(faults),
            "Renew it, or set the clock; a running agent takes new files.",
        )
    return judge_lifetimes("", lifetimes)


def _check_keys(guard: Guard) -> Found:
    """As `serve` does. Raises OpsError `signing_key_invalid`."""
    if not guard.signing_key_file:
        return skip("requests are not signed")
    from spritemesh.signer import KeyFile

    keys = KeyFile(guard.signing_key_file).current()
    return well(f"{guard.signing_key_file}: {', '.join(key.id for key in keys)}")
