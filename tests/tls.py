"""TLS for Ray in tests: a key and a certificate that signs itself, made by `openssl`."""

from __future__ import annotations

import subprocess
from pathlib import Path


def tls_variables(folder: Path, *addresses: str) -> dict[str, str]:
    """Make a key and a certificate, and return the variables that name them to Ray.

    Args:
        folder: takes both files.
        addresses: that the certificate is for, beside the loopback address.

    Raises:
        FileNotFoundError: there is no `openssl` on this machine.
        subprocess.CalledProcessError: `openssl` failed.
    """
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    ips = "".join(f"IP:{each}," for each in addresses)
    create = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=rayface",
    ]
    names = f"subjectAltName={ips}IP:127.0.0.1,DNS:localhost"
    subprocess.run(
        [*create, "-addext", names, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(certificate),
        "RAY_TLS_SERVER_KEY": str(key),
        "RAY_TLS_CA_CERT": str(certificate),
    }
