"""Whose certificates are believed."""

import ssl


def verifying() -> ssl.SSLContext:
    """Verifies names and certificates against the system's authorities (SSL_CERT_FILE is OpenSSL's own)."""
    return ssl.create_default_context()
