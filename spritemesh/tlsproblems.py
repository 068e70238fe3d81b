"""What a failed handshake means, in words for whoever has to mend it."""

import ssl

from spritemesh.endpoints import Trust

_OTHER_NAME = (62, 64)  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_EXPIRED = 10
_NOT_YET = 9
# Authorities that nobody knows: X509_V_ERR_... of a chain that leads nowhere.
UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
# What a server says of certificates of clients, which it looks at before any request.
_WANTED = "CERTIFICATE_REQUIRED"
_REFUSED = {
    "UNKNOWN_CA": "is of no authority that it knows",
    "CERTIFICATE_EXPIRED": "has expired",
    "CERTIFICATE_REVOKED": "was revoked",
    "BAD_CERTIFICATE": "is not believed",
    "CERTIFICATE_UNKNOWN": "is not believed",
    "UNSUPPORTED_CERTIFICATE": "is for another purpose",
}
WANTS_TLS = "the server wants TLS: its address is grpcs:// or https://"
_NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
)


def problem(error: ssl.SSLError, trust: Trust, host: str) -> str:
    """What an error of OpenSSL in a handshake means for the client; "" for one that says nothing of trust.
    host: of the address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code in _OTHER_NAME:
            name = trust.server_name or host
            return f"the server's certificate is not for {name}; see {trust.named('server-name')}"
        if code in UNKNOWN_AUTHORITY:
            source = f"in {trust.ca}" if trust.ca else "of this system"
            return f"the server's certificate is of no authority {source}; see {trust.named('ca')}"
        if code in {_EXPIRED, _NOT_YET}:
            when = "has expired" if code == _EXPIRED else "is not valid yet"
            return f"the server's certificate {when}"
        return f"the server's certificate is not believed: {error.verify_message}"
    if any(word in (error.reason or "") for word in _NO_TLS):
        return "the server speaks no TLS: its address is grpc:// or http://"
    return told(error, trust)


def told(error: ssl.SSLError, trust: Trust) -> str:
    """What an alert of the server means; "" for other errors."""
    reason = error.reason or ""
    if "ALERT" not in reason:
        return unwanted(trust) if isinstance(error, ssl.SSLEOFError) else ""
    return refused(error, trust) or f"the server ends the handshake: {reason.lower()}"


def refused(error: ssl.SSLError, trust: Trust) -> str:
    """What a server says of the client's certificate, before it reads anything else; "" for other errors."""
    reason = error.reason or ""
    if "ALERT" not in reason:
        return ""
    if _WANTED in reason:
        return _wanted(trust)
    for word, what in _REFUSED.items():
        if word in reason:
            return f"the server says that this side's certificate {what}" if trust.cert else _wanted(trust)
    return ""


def _wanted(trust: Trust) -> str:
    given = f"{trust.named('cert')} and {trust.named('key')}"
    return f"the server wants a certificate of this side: give {given}"


def unwanted(trust: Trust) -> str:
    """What it means that a server hangs up right after the handshake."""
    if not trust.cert:
        return _wanted(trust)
    return (
        f"the server does not believe {trust.named('cert')} {trust.cert}: its authority, its dates or its use"
    )
