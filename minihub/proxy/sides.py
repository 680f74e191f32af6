"""Which certificates each side of the proxy uses, from the options.

Rules of this file: it loads ``tls`` only for a side that has TLS.

Threads: any.
"""

from __future__ import annotations

from minihub.proxy.options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minihub.proxy.tls import Certificates


def _ciphers(options: Options) -> str:
    from minihub.proxy.tls import CIPHERS

    return options.ssl_ciphers or CIPHERS.format(rc4="RC4" if options.ssl_allow_rc4 else "!RC4")


def public_certificates(options: Options) -> Certificates | None:
    """Return what the public side shows, None without TLS. Raises ProxyError."""
    if not options.ssl_cert:
        return None
    from minihub.proxy.tls import Certificates

    return Certificates(
        "--ssl",
        key=options.ssl_key,
        cert=options.ssl_cert,
        ca=options.ssl_ca,
        dhparam=options.ssl_dhparam,
        passphrase=options.ssl_key_passphrase,
        protocol=options.ssl_protocol,
        ciphers=_ciphers(options),
        is_server=True,
        is_verified=options.ssl_request_cert,
    )


def api_certificates(options: Options) -> Certificates | None:
    """Return what the REST API shows, None without TLS. Raises ProxyError."""
    if not options.api_ssl_cert:
        return None
    from minihub.proxy.tls import Certificates

    return Certificates(
        "--api-ssl",
        key=options.api_ssl_key,
        cert=options.api_ssl_cert,
        ca=options.api_ssl_ca,
        dhparam=options.ssl_dhparam,
        passphrase=options.api_ssl_key_passphrase,
        protocol=options.ssl_protocol,
        ciphers=_ciphers(options),
        is_server=True,
        is_verified=options.api_ssl_request_cert,
    )


def client_certificates(options: Options) -> Certificates:
    """Return what targets are shown and judged by. Raises ProxyError."""
    from minihub.proxy.tls import Certificates

    return Certificates(
        "--client-ssl",
        key=options.client_ssl_key,
        cert=options.client_ssl_cert,
        ca=options.client_ssl_ca,
        protocol=options.ssl_protocol,
        ciphers=_ciphers(options),
        is_server=False,
        is_verified=not options.insecure,
    )
