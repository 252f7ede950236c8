"""The safe connection to xAI's gRPC API."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from antiphon.core.deltas import Text
from antiphon.errors import ModelUnavailable
from antiphon.models.scripted import ScriptedModel
from antiphon.settings import Tls
from grpc_kit import grpc_serving
from xai_kit import ONCE, heard, model_at, run


def vouching_for_itself(folder: Path) -> Tls:
    """A certificate for this machine, by nobody known."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    tls = Tls(folder / "cert.pem", folder / "key.pem")
    tls.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    tls.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return tls


def test_a_host_has_to_be_who_it_says(tmp_path: Path) -> None:
    tls = vouching_for_itself(tmp_path)
    upstream = ScriptedModel(["Hi."])

    async def main(port: int) -> None:
        url = f"https://127.0.0.1:{port}"
        stranger = model_at(port, url=url, retry=ONCE)
        with pytest.raises(ModelUnavailable):
            await heard(stranger)
        assert not upstream.calls
        known = grpc.ssl_channel_credentials(tls.cert.read_bytes())
        friend = model_at(port, url=url, credentials=known)
        assert Text("Hi.") in await heard(friend)
        await stranger.close()
        await friend.close()

    with grpc_serving(upstream, certificate=tls) as server:
        run(main(server.port))
