"""A look-alike of what we ask of Supabase Auth, on a real socket.

Its answers follow the source of github.com/supabase/auth (August 2026), in internal/api: auth.go for what is refused
with which code, user.go, token.go, otp.go, external.go and settings.go; and internal/models for the user. There is no
real server in the registries.
"""

import time
import uuid
from typing import Any

import jwt
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SECRET_KEY = "sb_secret_of_the_tests"
JWT_SECRET = "the-jwt-secret-of-the-project-with-enough-characters"
VERSION = {"x-supabase-api-version": "2024-01-01"}
AT = "2026-01-01T00:00:00Z"


class Project:
    """Its users by their id, and what it is asked."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self.asked = 0
        self.broken: Response | None = None
        """What is answered instead."""
        self.passwords: dict[str, tuple[str, str]] = {}
        """By email: the password and the token that it gives."""
        self.links: dict[str, str] = {}
        """By email: where the link that was sent leads."""
        routes = [
            Route("/auth/v1/user", self._user),
            Route("/auth/v1/token", self._token, methods=["POST"]),
            Route("/auth/v1/otp", self._link, methods=["POST"]),
            Route("/auth/v1/settings", self._settings),
        ]
        from_pages = Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
        self.app = Starlette(routes=routes, middleware=[from_pages])

    def signs_in(self, email: str, *, proved: bool = True, expires_in: int = 3600, **changes: Any) -> str:
        """The access token of a new user."""
        user_id = str(uuid.uuid4())
        self.users[user_id] = {**_user(user_id, email, proved=proved), **changes}
        return self.token(user_id, expires_in=expires_in)

    def token(self, user_id: str, *, expires_in: int = 3600, secret: str = JWT_SECRET) -> str:
        claims = {"sub": user_id, "role": "authenticated", "exp": int(time.time()) + expires_in}
        return jwt.encode(claims, secret, "HS256")

    async def _token(self, request: Request) -> Response:
        given = await request.json()
        password, token = self.passwords.get(given["email"], ("", ""))
        if given["password"] != password:
            refused = {"code": 400, "error_code": "invalid_credentials", "msg": "Invalid login credentials"}
            return JSONResponse(refused, 400)
        return JSONResponse({"access_token": token, "token_type": "bearer", "expires_in": 3600})

    async def _link(self, request: Request) -> Response:
        self.links[(await request.json())["email"]] = request.query_params["redirect_to"]
        return JSONResponse({})

    async def _settings(self, request: Request) -> Response:
        return JSONResponse({"external": {"email": True, "google": True, "github": False}, "disable_signup": False})

    async def _user(self, request: Request) -> Response:
        self.asked += 1
        if self.broken:
            return self.broken
        if request.headers.get("apikey") != SECRET_KEY:  # the gateway in front of Supabase Auth
            return JSONResponse({"message": "Invalid API key"}, 401)
        try:
            bearer = request.headers["authorization"].removeprefix("Bearer ")
            claims = jwt.decode(bearer, JWT_SECRET, ["HS256"], options={"verify_aud": False})
        except jwt.InvalidTokenError as error:
            return _refusal("bad_jwt", f"invalid JWT: unable to parse or verify signature, {error}")
        if claims["sub"] not in self.users:
            return _refusal("user_not_found", "User from sub claim in JWT does not exist")
        return JSONResponse(self.users[claims["sub"]])


def _refusal(code: str, message: str) -> Response:
    return JSONResponse({"code": code, "message": message}, 403, headers=VERSION)


def _user(user_id: str, email: str, *, proved: bool) -> dict[str, Any]:
    """Confirmed in any case, as where a project does not confirm emails."""
    identity_data = {"email": email, "email_verified": proved, "phone_verified": False, "sub": user_id}
    return {
        "id": user_id,
        "aud": "authenticated",
        "role": "authenticated",
        "email": email.lower(),
        "email_confirmed_at": AT,
        "phone": "",
        "confirmed_at": AT,
        "last_sign_in_at": AT,
        "app_metadata": {"provider": "email", "providers": ["email"], "role": "admin"},
        "user_metadata": {"email_verified": True, "role": "admin"},
        "identities": [
            {
                "identity_id": str(uuid.uuid4()),
                "id": user_id,
                "user_id": user_id,
                "identity_data": identity_data,
                "provider": "email",
                "last_sign_in_at": AT,
                "created_at": AT,
                "updated_at": AT,
                "email": email.lower(),
            }
        ],
        "created_at": AT,
        "updated_at": AT,
        "is_anonymous": False,
    }
