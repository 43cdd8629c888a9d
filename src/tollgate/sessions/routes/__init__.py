"""The routes of sessions."""

from tollgate.keys.authentication import Gate
from tollgate.process.http_client import Http
from tollgate.sessions.first_net import FirstNet
from tollgate.sessions.passwords import Passwords
from tollgate.sessions.routes import passwords, sessions, sign_in
from tollgate.sessions.supabase_auth import SupabaseAuth
from tollgate.sessions.ways import Ways
from tollgate.settings import Settings
from tollgate.web.routing import Routes


def router(gate: Gate, chosen: Settings, http: Http) -> Routes:
    ways, net = Ways(Passwords(), _supabase(chosen, http), gate.digests), FirstNet()
    routes = Routes(tags=["sessions"])
    routes.take(sign_in.ways_router(chosen))
    routes.take(sign_in.router(gate, ways, net, secure=chosen.production))
    routes.take(sessions.router(gate))
    routes.take(passwords.router(gate, ways, net))
    return routes


def _supabase(chosen: Settings, http: Http) -> SupabaseAuth | None:
    """Set up by the publishable key, with which the page asks Supabase Auth for an access token."""
    if not (chosen.supabase_url and chosen.supabase_secret_key and chosen.supabase_publishable_key):
        return None
    return SupabaseAuth(chosen.supabase_url, chosen.supabase_secret_key.get_secret_value(), http)
