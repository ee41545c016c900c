"""A cluster's own certificate authorities, certificates, keys and kubeconfigs."""

import base64
import csv
import io
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sandbox.kubernetes.layout import API_SERVICE_ADDRESS, CLUSTER_DOMAIN, Layout

ADMIN = "admin"
PROVISIONER = "provisioner"
CONTROLLER_MANAGER = "controller-manager"
SCHEDULER = "scheduler"
KUBELET = "kubelet"
KUBE_PROXY = "kube-proxy"
ADDONS = "addons"
"""The sandbox's own helpers (kube-router, local-path-provisioner, kwok), which may do everything."""

_MASTERS = "system:masters"
_VALIDITY = timedelta(days=365)
# Clocks of two programs on one machine agree, but a suspended virtual machine's may be stepped back.
_BACKDATE = timedelta(hours=1)


@dataclass(frozen=True)
class _Pair:
    key: EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        return _key_pem(self.key)

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def create(layout: Layout) -> None:
    """Write every key, certificate and kubeconfig into `layout.pki`; keys readable by the owner only.

    Raises:
        OSError: the folder cannot be written.
    """
    layout.pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = _authority("berth-sandbox")
    front_proxy = _authority("berth-sandbox-front-proxy")
    _write_pair(layout, "ca", authority)
    _write_pair(layout, "front-proxy-ca", front_proxy)
    _write_pair(layout, "front-proxy-client", _client(front_proxy, "front-proxy-client"))
    _write_pair(layout, "kubelet-client", _client(authority, "kube-apiserver-kubelet-client", _MASTERS))
    _write_pair(layout, "api-server", _server(authority, "kube-apiserver", _api_server_names(layout)))
    node = f"system:node:{layout.node_name}"
    _write_pair(layout, "kubelet-server", _server(authority, node, [layout.node_name, layout.node_address]))
    _write_service_account_keys(layout)
    _write_ingress_token(layout)
    for user, common_name, group in (
        (ADMIN, "berth-sandbox-admin", _MASTERS),
        (PROVISIONER, "berth-provisioner", None),
        (CONTROLLER_MANAGER, "system:kube-controller-manager", None),
        (SCHEDULER, "system:kube-scheduler", None),
        (KUBELET, node, "system:nodes"),
        (KUBE_PROXY, "system:kube-proxy", None),
        (ADDONS, "berth-sandbox-addons", _MASTERS),
    ):
        pair = _client(authority, common_name, group)
        _write_pair(layout, user, pair)
        _write(layout.kubeconfig(user), _kubeconfig(layout, authority, common_name, pair))


def _api_server_names(layout: Layout) -> list[str]:
    service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    return [
        *service,
        f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
        "localhost",
        "127.0.0.1",
        API_SERVICE_ADDRESS,
        layout.node_address,
    ]


def _write_service_account_keys(layout: Layout) -> None:
    key = generate_private_key(SECP256R1())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _write(layout.pki / "service-account.key", _key_pem(key))
    _write(layout.pki / "service-account.pub", public)


def _write_ingress_token(layout: Layout) -> None:
    """Skipper outside a pod knows only bearer tokens (its -kubernetes-token-file)."""
    token = secrets.token_urlsafe(32)
    table = io.StringIO()
    csv.writer(table).writerow([token, "berth-sandbox-ingress", "berth-sandbox-ingress"])
    _write(layout.pki / "tokens.csv", table.getvalue().encode())
    _write(layout.pki / "ingress.token", token.encode())


def _authority(common_name: str) -> _Pair:
    key = generate_private_key(SECP256R1())
    builder = (
        _builder(key, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _Pair(key, builder.sign(key, SHA256()))


def _client(authority: _Pair, common_name: str, group: str | None = None) -> _Pair:
    return _leaf(authority, common_name, group, ExtendedKeyUsageOID.CLIENT_AUTH, [])


def _server(authority: _Pair, common_name: str, names: Sequence[str]) -> _Pair:
    return _leaf(authority, common_name, None, ExtendedKeyUsageOID.SERVER_AUTH, names)


def _leaf(
    authority: _Pair, common_name: str, group: str | None, usage: x509.ObjectIdentifier, names: Sequence[str]
) -> _Pair:
    key = generate_private_key(SECP256R1())
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if group is not None:
        subject.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    builder = (
        _builder(key, x509.Name(subject))
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
    )
    if names:
        general = [_general_name(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    return _Pair(key, builder.sign(authority.key, SHA256()))


def _builder(key: EllipticCurvePrivateKey, subject: x509.Name) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _VALIDITY)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _kubeconfig(layout: Layout, authority: _Pair, user: str, pair: _Pair) -> bytes:
    cluster = layout.config.name
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster,
                "cluster": {
                    "server": layout.api_url,
                    "certificate-authority-data": _base64(authority.certificate_pem),
                },
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _base64(pair.certificate_pem),
                    "client-key-data": _base64(pair.key_pem),
                },
            }
        ],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
        "current-context": cluster,
    }
    return json.dumps(content, indent=1).encode()


def _write_pair(layout: Layout, name: str, pair: _Pair) -> None:
    _write(layout.pki / f"{name}.crt", pair.certificate_pem)
    _write(layout.pki / f"{name}.key", pair.key_pem)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
