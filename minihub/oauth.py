"""The OAuth provider that single-user servers and services log people in with.

Rules of this file: the protocol's decisions are oauthlib's; this file answers its questions from
the store. Only the authorization code flow, no refresh tokens. Redirect URIs may be paths on
this origin (``/user/ada/oauth_callback``) and must equal the registered text exactly. PKCE is
verified whenever a client offers it; a verifier for which there was no challenge is refused. A code
is spent by its first use, right or wrong, and ends with the login it came from. It knows no cookies
and no pages; who may approve what is decided in :mod:`minihub.web.oauth_pages`.

Threads: any; all state is in the store and in oauthlib's per-request objects.
Sources: RFC 6749 (sections 3.1.2, 4.1, 5.2), RFC 7636, RFC 9700 (section 2.1.1).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from oauthlib.oauth2 import (
    AuthorizationEndpoint,
    BearerToken,
    FatalClientError,
    OAuth2Error,
    RequestValidator,
    TokenEndpoint,
)
from oauthlib.oauth2.rfc6749 import errors as oauth_errors
from oauthlib.oauth2.rfc6749.grant_types import AuthorizationCodeGrant

from . import clock, tokens
from .accounts import Accounts, fingerprint
from .errors import BadRequest, MinihubError
from .models import OAuthClient, OAuthCode, User
from .prepared import Prepared, slot, slots
from .scopes import IDENTIFY
from .texts import Text

CODE_LIFETIME_S = 300


class OAuthRedirect(MinihubError):
    """Raised when a client's mistake is reported to the client, by redirecting to ``location``."""

    status = 302

    def __init__(self, location: str) -> None:
        self.location = location
        super().__init__(location)


@dataclass(frozen=True)
class AuthorizationRequest:
    """A valid request for authorization, before anybody has approved it."""

    client: OAuthClient
    scopes: list[str]
    credentials: dict[str, Any]


class _CodeGrant(AuthorizationCodeGrant):
    """The code grant, with redirect URIs that are compared as registered and may be paths."""

    def __init__(self, validator: RequestValidator) -> None:
        super().__init__(validator)
        self.refresh_token = False

    def _handle_redirects(self, request: Any) -> None:
        registered = self.request_validator.get_default_redirect_uri(request.client_id, request)
        request.using_default_redirect_uri = request.redirect_uri is None
        if request.redirect_uri is None:
            request.redirect_uri = registered
        elif request.redirect_uri != registered:
            raise oauth_errors.MismatchingRedirectURIError(request=request)


class _Validator(RequestValidator):
    """Answers oauthlib's questions; ``request`` is its own object of one request."""

    def __init__(self, accounts: Accounts, require_pkce: bool) -> None:
        self.accounts = accounts
        self.store = accounts.store
        self._require_pkce = require_pkce

    def _client(self, client_id: str | None) -> OAuthClient | None:
        if not client_id:
            return None
        with self.store.session():
            return OAuthClient.get_or_none(OAuthClient.identifier == client_id)

    # -- authorization ---------------------------------------------------------------------

    def validate_client_id(self, client_id: str, request: Any, *args: Any, **kw: Any) -> bool:
        request.client = self._client(client_id)
        return request.client is not None

    def get_default_redirect_uri(
        self, client_id: str, request: Any, *args: Any, **kw: Any
    ) -> str | None:
        client = self._client(client_id)
        return client.redirect_uri if client else None

    def validate_response_type(
        self, client_id: str, response_type: str, client: Any, request: Any, *args: Any, **kw: Any
    ) -> bool:
        return response_type == "code"

    def get_default_scopes(self, client_id: str, request: Any, *args: Any, **kw: Any) -> list[str]:
        client = self._client(client_id)
        return list(client.allowed_scopes) if client else []

    def validate_scopes(
        self, client_id: str, scopes: list[str], client: Any, request: Any, *args: Any, **kw: Any
    ) -> bool:
        return set(scopes) <= set(client.allowed_scopes)

    def is_pkce_required(self, client_id: str, request: Any) -> bool:
        return self._require_pkce

    def save_authorization_code(
        self, client_id: str, code: dict[str, str], request: Any, *args: Any, **kw: Any
    ) -> None:
        with self.store.transaction(touches_rights=False):
            OAuthCode.delete().where(OAuthCode.expires_at < clock.now_text()).execute()
            OAuthCode.create(
                client=request.client,
                user=request.user,
                hashed=fingerprint(code["code"]),
                redirect_uri=request.redirect_uri,
                scopes=sorted({*request.scopes, request.client.access, *IDENTIFY}),
                session_id=request.session_id,
                challenge=request.code_challenge or "",
                challenge_method=request.code_challenge_method or "",
                expires_at=clock.isoformat(clock.after(CODE_LIFETIME_S)),
            )

    # -- token exchange --------------------------------------------------------------------

    def client_authentication_required(self, request: Any, *args: Any, **kw: Any) -> bool:
        return True

    def authenticate_client(self, request: Any, *args: Any, **kw: Any) -> bool:
        client_id, secret = request.client_id, request.client_secret
        if not secret:
            client_id, secret = _basic_credentials(request.headers.get("Authorization", ""))
        client = self._client(client_id)
        if client is None or not secret or not tokens.check_token(secret, client.secret):
            return False
        client.client_id = client.identifier  # the attribute oauthlib looks for
        request.client = client
        request.client_id = client.identifier
        return True

    def validate_grant_type(
        self, client_id: str, grant_type: str, client: Any, request: Any, *args: Any, **kw: Any
    ) -> bool:
        return grant_type == "authorization_code"

    def validate_code(
        self, client_id: str, code: str, client: Any, request: Any, *args: Any, **kw: Any
    ) -> bool:
        with self.store.transaction(touches_rights=False):
            row = OAuthCode.get_or_none(
                OAuthCode.hashed == fingerprint(code), OAuthCode.client == client
            )
            if row is None:
                return False
            row.delete_instance()  # spent, whatever comes next
            if row.expires_at <= clock.now_text():
                return False
        if request.code_verifier and not row.challenge:
            return False  # somebody took the challenge out of the client's request
        request.authorization = row
        request.user = row.user_id
        request.scopes = row.scopes
        return True

    def get_code_challenge(self, code: str, request: Any) -> str | None:
        return request.authorization.challenge or None

    def get_code_challenge_method(self, code: str, request: Any) -> str | None:
        return request.authorization.challenge_method or None

    def confirm_redirect_uri(
        self,
        client_id: str,
        code: str,
        redirect_uri: str,
        client: Any,
        request: Any,
        *args: Any,
        **kw: Any,
    ) -> bool:
        return redirect_uri == request.authorization.redirect_uri

    def save_bearer_token(self, token: dict[str, Any], request: Any, *args: Any, **kw: Any) -> None:
        self.accounts.issue_token(
            user_id=request.user,
            oauth_client_id=request.client.id,
            note=f"OAuth login: {request.client.description or request.client.identifier}",
            scopes=request.scopes,
            session_id=request.authorization.session_id,
            expires_in_s=token["expires_in"],
            plain=token["access_token"],
        )

    def invalidate_authorization_code(
        self, client_id: str, code: str, request: Any, *args: Any, **kw: Any
    ) -> None:
        """Nothing is left to do: :meth:`validate_code` has deleted it."""


def _basic_credentials(header: str) -> tuple[str | None, str | None]:
    """Return ``(client_id, secret)`` of an HTTP Basic header (RFC 6749, section 2.3.1)."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None, None
    try:
        name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None, None
    return unquote(name), unquote(secret)


_VALUES = ("secret", "redirect_uri", "access", "allowed_scopes", "description")
_CLIENT = Prepared(lambda: OAuthClient.select().where(OAuthClient.identifier == slot("identifier")))
_ADD_CLIENT = Prepared(lambda: OAuthClient.insert(slots("identifier", *_VALUES)))
_UPDATE_CLIENT = Prepared(
    lambda: OAuthClient.update(slots(*_VALUES)).where(OAuthClient.id == slot("id"))
)


class OAuthProvider:
    """Authorization and token endpoints over the store."""

    def __init__(
        self, accounts: Accounts, *, token_lifetime_s: int, require_pkce: bool = False
    ) -> None:
        self.store = accounts.store
        validator = _Validator(accounts, require_pkce)
        grant = _CodeGrant(validator)
        bearer = BearerToken(
            validator, token_generator=lambda request: tokens.new_token(),
            expires_in=token_lifetime_s,
        )  # fmt: skip
        self._authorize = AuthorizationEndpoint("code", bearer, {"code": grant})
        self._exchange = TokenEndpoint("authorization_code", bearer, {"authorization_code": grant})

    def register_client(
        self,
        identifier: str,
        *,
        secret: str,
        redirect_uri: str,
        access: str,
        allowed_scopes: Iterable[str] = (),
        description: str,
    ) -> OAuthClient:
        """Create or update the client of that identifier. ``secret`` is stored hashed.

        ``access`` is the scope of whoever may use the server or service behind it; every token
        that it gets holds that scope.
        """
        allowed = sorted({access, *allowed_scopes, *IDENTIFY})
        values = {
            "secret": tokens.hash_token(secret),
            "redirect_uri": redirect_uri,
            "access": access,
            "allowed_scopes": OAuthClient.allowed_scopes.db_value(allowed),
            "description": description,
        }
        with self.store.transaction(touches_rights=False):
            client = _CLIENT.row(identifier=identifier)
            if client is None:
                _ADD_CLIENT.run(identifier=identifier, **values)
            else:
                if (client.access, client.allowed_scopes) != (access, allowed):
                    self.store.touch_rights()  # of the tokens that the client has
                _UPDATE_CLIENT.run(id=client.id, **values)
            return _CLIENT.row(identifier=identifier)

    def validate_authorization(self, uri: str) -> AuthorizationRequest:
        """Check the query of an authorization request.

        Raises BadRequest when it must not be answered by a redirect (unknown client, foreign
        redirect URI), OAuthRedirect when the client is to be told.
        """
        try:
            scopes, credentials = self._authorize.validate_authorization_request(uri)
        except FatalClientError as error:
            raise BadRequest(error.description or error.error) from error
        except OAuth2Error as error:
            raise OAuthRedirect(error.in_uri(error.redirect_uri)) from error
        except ValueError as error:  # a query that is not form-encoded
            raise BadRequest(Text("the query cannot be read")) from error
        return AuthorizationRequest(credentials.pop("request").client, list(scopes), credentials)

    def approve(self, uri: str, *, user: User, session_id: str, scopes: list[str]) -> str:
        """Issue a code for ``user`` and return where to send the browser."""
        headers, _body, _status = self._authorize.create_authorization_response(
            uri, scopes=scopes, credentials={"user": user, "session_id": session_id}
        )
        return headers["Location"]

    def exchange(
        self, uri: str, method: str, body: str, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], str]:
        """Answer a token request; returns ``(status, headers, JSON text)``. Raises BadRequest."""
        try:
            out_headers, out_body, status = self._exchange.create_token_response(
                uri, http_method=method, body=body, headers=headers
            )
        except OAuth2Error as error:
            return error.status_code, {"Cache-Control": "no-store"}, error.json
        except ValueError as error:  # a query or body that is not form-encoded
            raise BadRequest(Text("the request cannot be read")) from error
        return status, out_headers, out_body
