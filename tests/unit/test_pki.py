"""Certificates, requests, tokens and identities."""

from __future__ import annotations

import base64
import ipaddress
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pyswarm import pki
from pyswarm.errors import Invalid, PermissionDenied
from pyswarm.pki import KeyPair, Subject

NOW = 1_700_000_000.0
DAY = 86_400.0
ROOT = pki.create_root(NOW)
MANAGER = Subject("m1", "manager", "cluster1", ("10.0.0.1", "fd00::1", "manager.example"))


def certificate(pair: KeyPair | bytes) -> x509.Certificate:
    return pki.load_certificates(pair.cert if isinstance(pair, KeyPair) else pair)[0]


def names(cert: x509.Certificate) -> tuple[list[str], list[str]]:
    value = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(address) for address in value.get_values_for_type(x509.IPAddress)]
    return value.get_values_for_type(x509.DNSName), addresses


def test_root_is_p256_for_twenty_years_and_may_sign() -> None:
    cert = certificate(ROOT)
    key = cert.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    assert cert.not_valid_before_utc.timestamp() == NOW - 3600
    assert cert.not_valid_after_utc.timestamp() == NOW + 20 * 365 * DAY
    assert cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert cert.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    cert.verify_directly_issued_by(cert)


def test_node_certificate_says_who_it_is_and_where() -> None:
    pair = pki.issue(ROOT, MANAGER, NOW)
    cert = certificate(pair)
    assert cert.not_valid_before_utc.timestamp() == NOW - 3600
    assert cert.not_valid_after_utc.timestamp() == NOW + 90 * DAY
    subject = {attribute.oid: attribute.value for attribute in cert.subject}
    assert subject == {
        NameOID.COMMON_NAME: "m1",
        NameOID.ORGANIZATIONAL_UNIT_NAME: "swarm-manager",
        NameOID.ORGANIZATION_NAME: "cluster1",
    }
    assert names(cert) == (
        ["swarm-manager", "pyswarm-etcd", "m1", "localhost", "manager.example"],
        ["127.0.0.1", "::1", "10.0.0.1", "fd00::1"],
    )
    purposes = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_worker_certificate_has_no_name_of_a_manager_whatever_it_says() -> None:
    subject = Subject("w1", "worker", "cluster1", ("10.0.0.2", "swarm-manager", "pyswarm-etcd"))
    assert names(certificate(pki.issue(ROOT, subject, NOW))) == (["swarm-worker", "w1"], [])


def test_client_certificate_is_for_clients_alone() -> None:
    cert = certificate(pki.issue(ROOT, Subject("me", "client", "cluster1"), NOW))
    with pytest.raises(x509.ExtensionNotFound):
        cert.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    purposes = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize(
    ("asked", "given"), [(1.0, 3600.0), (7200.0, 7200.0), (100 * 365 * DAY, 20 * 365 * DAY)]
)
def test_life_is_at_least_an_hour_and_at_most_the_cas(asked: float, given: float) -> None:
    who = pki.identity(pki.issue(ROOT, MANAGER, NOW, asked).cert)
    assert who.not_after - NOW == given


@pytest.mark.parametrize("role", ["manager", "worker", "client"])
def test_identity_reads_back_what_was_issued(role: pki.Role) -> None:
    pair = pki.issue(ROOT, Subject("n1", role, "cluster1"), NOW)
    who = pki.identity(pair.cert)
    assert (who.node_id, who.role, who.cluster_id) == ("n1", role, "cluster1")
    assert who.serial == f"{certificate(pair).serial_number:x}"
    assert pki.peer_identity({"x509_pem_cert": [pair.cert]}) == who
    assert pki.verify(pair.cert, ROOT.cert, NOW) == who


def test_identity_of_a_stranger_is_refused() -> None:
    with pytest.raises(PermissionDenied, match="'CN=swarm-ca' is not a swarm node's"):
        pki.identity(ROOT.cert)
    assert pki.peer_identity({}) is None


def test_signer_decides_on_the_subject_whatever_was_asked_for() -> None:
    key = pki.new_key()
    request = pki.create_request(key, "root")
    cert = pki.sign(ROOT, request, Subject("w1", "worker", "c"), NOW)
    assert pki.identity(cert).node_id == "w1"


def test_request_must_prove_possession_of_a_good_key() -> None:
    good = pki.create_request(pki.new_key())
    pki.check_request(good)
    with pytest.raises(Invalid, match="not a certificate request"):
        pki.check_request(b"hello")
    parsed = x509.load_pem_x509_csr(good)
    der = bytearray(parsed.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    body = base64.encodebytes(bytes(der))
    broken = b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(Invalid, match="signature does not fit"):
        pki.check_request(broken)
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(weak, hashes.SHA256())
    with pytest.raises(Invalid, match="must be ECDSA P-256"):
        pki.check_request(request.public_bytes(serialization.Encoding.PEM))


def test_verify_refuses_other_roots_and_other_times() -> None:
    pair = pki.issue(ROOT, MANAGER, NOW)
    with pytest.raises(PermissionDenied, match="not signed by this cluster's CA"):
        pki.verify(pair.cert, pki.create_root(NOW).cert, NOW)
    for moment in (NOW - 3700, NOW + 91 * DAY):
        with pytest.raises(PermissionDenied, match="is valid from 2023-11-14"):
            pki.verify(pair.cert, ROOT.cert, moment)


def test_an_end_certificate_signs_nothing() -> None:
    manager = pki.issue(ROOT, MANAGER, NOW)
    forged = pki.issue(manager, Subject("m2", "manager", "cluster1"), NOW)
    with pytest.raises(PermissionDenied, match="not signed"):
        pki.verify(forged.cert + manager.cert, ROOT.cert, NOW)


def test_cross_signed_root_bridges_a_rotation() -> None:
    new = pki.create_root(NOW)
    cross = pki.cross_sign(new.cert, ROOT, NOW)
    pair = pki.issue(new, MANAGER, NOW, chain=cross)
    assert pki.verify(pair.cert, ROOT.cert, NOW).node_id == "m1"
    assert pki.verify(pair.cert, new.cert, NOW).node_id == "m1"
    without = pki.issue(new, MANAGER, NOW)
    with pytest.raises(PermissionDenied):
        pki.verify(without.cert, ROOT.cert, NOW)
    assert pki.verify(without.cert, pki.bundle([ROOT.cert, new.cert, ROOT.cert]), NOW).role == "manager"


def test_check_root_says_what_is_wrong() -> None:
    pki.check_root(ROOT, NOW)
    with pytest.raises(Invalid, match="do not belong together"):
        pki.check_root(KeyPair(ROOT.cert, pki.new_key()), NOW)
    with pytest.raises(Invalid, match="ended on 2043"):
        pki.check_root(ROOT, NOW + 21 * 365 * DAY)
    with pytest.raises(Invalid, match="CA:TRUE"):
        pki.check_root(pki.issue(ROOT, MANAGER, NOW), NOW)
    with pytest.raises(Invalid, match="not a certificate"):
        pki.check_root(KeyPair(b"x", ROOT.key), NOW)
    with pytest.raises(Invalid, match="not a private key"):
        pki.check_root(KeyPair(ROOT.cert, b"x"), NOW)


def test_revocation_list_holds_the_serials() -> None:
    serial = pki.identity(pki.issue(ROOT, MANAGER, NOW).cert).serial
    crl = x509.load_pem_x509_crl(pki.revocation_list(ROOT, [serial, "ab", "ab"], NOW))
    assert sorted(entry.serial_number for entry in crl) == sorted([int(serial, 16), 0xAB])
    key = certificate(ROOT).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)
    assert len(list(x509.load_pem_x509_crl(pki.revocation_list(ROOT, [], NOW)))) == 0


@pytest.mark.parametrize(("chance", "part"), [(0.0, 0.5), (0.5, 0.65), (1.0, 0.8)])
def test_renewal_lies_between_half_and_four_fifths(chance: float, part: float) -> None:
    who = pki.identity(pki.issue(ROOT, MANAGER, NOW).cert)
    assert pki.renewal_time(who, chance) == pytest.approx(NOW - 3600 + part * (90 * DAY + 3600))


# ----------------------------------------------------------------------------------------- join tokens


def test_token_has_swarms_form_and_parses_back() -> None:
    secret = pki.new_token_secret()
    text = pki.join_token(ROOT.cert, secret)
    assert re.fullmatch(r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}", text)
    token = pki.parse_token(f"  {text}\n")
    assert str(token) == text
    assert pki.same_secret(token.secret, secret)
    pki.check_trust(token, ROOT.cert)
    with pytest.raises(PermissionDenied, match="is not the one that the join token names"):
        pki.check_trust(token, pki.create_root(NOW).cert)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a join token"),
        ("hello", "not a join token"),
        ("SWMTKN-1-abc", "not a join token"),
        (f"SWMTKN-2-{'a' * 50}-{'b' * 25}", "version '2'"),
        (f"SWMTKN-1-{'a' * 49}-{'b' * 25}", "cut short"),
        (f"SWMTKN-1-{'a' * 50}-{'b' * 24}", "cut short"),
        (f"SWMTKN-1-{'a' * 50}-{'B' * 25}", "characters that no token has"),
    ],
)
def test_damaged_token_is_explained_without_repeating_it(text: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason) as caught:
        pki.parse_token(text)
    assert "b" * 24 not in str(caught.value)


def test_empty_secrets_match_nothing() -> None:
    assert not pki.same_secret("", "")
    assert not pki.same_secret("a", "b")


def test_digest_depends_on_the_certificates_and_not_on_the_text() -> None:
    text = ROOT.cert.decode()
    assert pki.ca_digest(text) == pki.ca_digest(f"# a comment\n{text}\n\n")


def test_addresses_are_real_addresses() -> None:
    _, addresses = names(certificate(pki.issue(ROOT, MANAGER, NOW)))
    assert all(ipaddress.ip_address(address) for address in addresses)
