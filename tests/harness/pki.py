"""An authority of the tests' own, and what it certifies. Keys are of EC P-256, which cost nothing to make."""

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)


class Pair(NamedTuple):
    """Paths of a certificate, with its chain, and its key."""

    cert: Path
    key: Path

    @property
    def server_flags(self) -> tuple[str, ...]:
        """Of a program that serves with it."""
        return ("--tls-cert", str(self.cert), "--tls-key", str(self.key))

    def copied(self, directory: Path) -> "Pair":
        """The same in files `cert` and `key` of another directory."""
        copy = Pair(directory / "cert", directory / "key")
        for source, target in zip(self, copy, strict=True):
            target.touch(mode=0o600)
            target.write_bytes(source.read_bytes())
        return copy

    def replace_by(self, other: "Pair") -> None:
        """Put others in place of both files, one after the other."""
        for source, target in zip(other, self, strict=True):
            _replace(target, source.read_bytes())


class Authority:
    """Certifies names. directory: where its files are. ca: its own certificate."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.ca = directory / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(_ca_usage(), critical=True)
        )
        self.ca.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))

    def pair(
        self,
        file: str,
        *,
        dns: Sequence[str] = (),
        uris: Sequence[str] = (),
        addresses: Sequence[str] = (),
        emails: Sequence[str] = (),
        common_name: str = "",
        expired: bool = False,
        left: dt.timedelta = 2 * _DAY,
    ) -> Pair:
        """A certificate with these names in files <file>.pem and <file>.key; an older one is replaced.
        left: of its life of four days."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        builder = _builder(x509.Name(names), self._name, key.public_key(), left=-_DAY if expired else left)
        alternatives: list[x509.GeneralName] = [
            *(x509.DNSName(name) for name in dns),
            *(x509.RFC822Name(name) for name in emails),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
            *(x509.UniformResourceIdentifier(uri) for uri in uris),
        ]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        pair = Pair(self.directory / f"{file}.pem", self.directory / f"{file}.key")
        _replace(
            pair.key,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        _replace(pair.cert, _pem(builder.sign(self._key, hashes.SHA256())))
        return pair

    def server(self, file: str = "server", *, expired: bool = False, left: dt.timedelta = 2 * _DAY) -> Pair:
        """A certificate for this host."""
        return self.pair(
            file,
            dns=("localhost", "sprite.test"),
            addresses=("127.0.0.1", "::1"),
            common_name="server",
            expired=expired,
            left=left,
        )


def serial_of(data: bytes) -> int:
    """Serial number of a certificate. data: PEM."""
    return x509.load_pem_x509_certificate(data).serial_number


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, left: dt.timedelta = 2 * _DAY
) -> x509.CertificateBuilder:
    end = dt.datetime.now(dt.UTC) + left
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - 4 * _DAY)
        .not_valid_after(end)
    )


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    new.touch(mode=0o600)
    new.write_bytes(data)
    os.replace(new, path)
