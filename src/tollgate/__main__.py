"""The commands: serve, migrate, seed-key, sign-in-link, sweep, audit, reconcile, backup, rotate-vault, hf-token, demo,
agent.

Exit codes: 0 done, 1 could not be done, 2 wrong usage or settings, 3 the books were rewritten since a head was taken.
What went wrong is one line on stderr.
"""

import argparse
import contextlib
import importlib
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tollgate import __version__, settings
from tollgate.app import compose, create_app, reconciler
from tollgate.audit import chain_heads
from tollgate.backups import dumps, verification
from tollgate.backups import rules as backups
from tollgate.backups import store as backup_store
from tollgate.completions.sweeper import Sweep
from tollgate.core.errors import NotFound, TollgateError
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.credits import store as credits
from tollgate.database import Door, embedded, migrations, open_door
from tollgate.database.opening import database_url
from tollgate.database.schema_version import NEEDED
from tollgate.keys import rules as key_rules
from tollgate.keys import store as keys
from tollgate.keys.authentication import console
from tollgate.process import clock, logs, server, side_process, signals, workers
from tollgate.process.connection_limits import Limits
from tollgate.process.http_client import Http
from tollgate.reconciliation import rules as reconciliation
from tollgate.sandbox import API
from tollgate.sessions import rules as session_rules
from tollgate.sessions import store as sessions
from tollgate.settings import SHORTEST_PEPPER, Settings
from tollgate.vault import rotation
from tollgate.vault import store as vault
from tollgate.vault.rules import Vault

AUDIT_SECONDS = 3600.0
DEMO_CREDITS = 5
OPERATORS = {"id": "org_operators", "name": "Operators", "plan_id": "enterprise"}
OPERATOR = {"id": "usr_operator", "email": "operator@localhost", "name": "Operator", "role": "admin"}
DEMO_MODEL = "sandbox/echo"
AGENT, LOCAL = "agent", "--local"
LOCAL_INGRESS = "127.0.0.1:8700"


class CommandError(Exception):
    """Why a command could not do its work, in one line."""


class RewrittenError(Exception):
    """What is no longer as it was when a head was taken, in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    is_agent = given[:1] == [AGENT]
    if is_agent and LOCAL not in given:
        return _agent(given[1:])
    options = _parser().parse_args(given[:1] if is_agent else given)
    options.of_agent = [one for one in given[1:] if one != LOCAL]
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))  # the server knows only that one
    try:
        options.environ = settings.environment(os.environ, _env_file())
        chosen = settings.read(options.environ)
        report_on_stdout = getattr(options, "json", False)
        stream = sys.stderr if report_on_stdout else None
        logs.configure(chosen.log_level, chosen.secrets(), stream, console=not chosen.production)
        options.command(chosen, options)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("\ntollgate: stopped, with everything that it had started", file=sys.stderr)
        return 0
    except settings.SettingsError as error:
        for line in error.lines:
            print(f"tollgate: {line}", file=sys.stderr)
        return 2
    except (key_rules.UnusableSecret, chain_heads.UnusableHead) as error:
        print(f"tollgate: {error}", file=sys.stderr)
        return 2
    except RewrittenError as error:
        print(f"tollgate: {error}", file=sys.stderr)
        return 3
    except (
        CommandError,
        dumps.BackupError,
        chain_heads.Busy,
        embedded.EmbeddedError,
        migrations.MigrationError,
        server.PortTaken,
    ) as error:
        print(f"tollgate: {error}", file=sys.stderr)
        return 1
    except TollgateError as error:
        print(f"tollgate: {error.message} ({error.code})", file=sys.stderr)
        return 1
    return 0


def _agent(arguments: Sequence[str]) -> int:
    """Needs none of the settings, since it runs on another machine. Only here is it imported."""
    program = importlib.import_module("tollgate.agent.program")
    return int(program.main(arguments))


def local_agent(chosen: Settings, options: argparse.Namespace) -> None:
    """Run models on this machine for a Tollgate server: `agent --help` lists the flags."""
    address = f"http://127.0.0.1:{chosen.port}"
    directory = chosen.data_folder / "agent"
    arguments = ["--server", address, "--data-dir", str(directory), "--end-engines"]
    arguments += ["--ingress", LOCAL_INGRESS, "--ingress-url", f"http://{LOCAL_INGRESS}"]
    if not (directory / "identity.json").exists():
        with _database(chosen, created=False):
            made = _through_the_door(chosen, lambda door: _new_link(console(door, AGENT), chosen, {}, address))
        enrolment = importlib.import_module("tollgate.agent.enrolment")
        secret = made["link"].rpartition("/")[2]
        try:
            arguments += ["--token", signals.run(enrolment.by_link(address, secret, f"http://{LOCAL_INGRESS}"))]
        except enrolment.NotEnrolled as error:
            raise CommandError(str(error)) from None
    if code := _agent([*arguments, *options.of_agent]):
        raise SystemExit(code)


def serve(chosen: Settings, options: argparse.Namespace) -> None:
    """Serve HTTP until stopped."""
    with (
        server.bind(chosen.bind_host, chosen.port) as listener,
        _database(chosen),
        _sandbox(_with_vault(chosen)) as complete,
    ):
        logs.source("application").info("serving", address=server.address(listener), version=__version__)
        if chosen.proxy_may_be_bypassed:
            logs.source("security").warning(
                "proxy_may_be_bypassed",
                remedy="TRUSTED_PROXY=proxy believes X-Forwarded-For, and all hosts may connect to this address: "
                "set HOST=127.0.0.1, or let a firewall admit the proxy alone.",
            )
        made = partial(create_app, complete, environ=options.environ)
        if chosen.workers > 1:
            workers.keep(chosen.workers, listener, server.serve, made, _limits(chosen))
        else:
            server.serve(listener, made, _limits(chosen))


def _limits(chosen: Settings) -> Limits:
    return Limits(
        head_bytes=chosen.max_head_bytes,
        head_seconds=chosen.head_timeout_seconds,
        body_idle_seconds=chosen.body_idle_seconds,
        unfinished_bytes=chosen.max_unfinished_bytes,
        unfinished_bytes_of_one=chosen.max_unfinished_bytes_per_address if chosen.trusted_proxy == "none" else None,
        keep_alive_seconds=chosen.keep_alive_seconds,
    )


def migrate(chosen: Settings, options: argparse.Namespace) -> None:
    """Bring the database's schema to this code's version."""
    if chosen.supabase_url and not chosen.database_url:
        raise CommandError(
            "migrate needs DATABASE_URL (in Supabase: Connect, Session pooler); `supabase db push` does the same"
        )
    with _database(chosen, migrated=False) as url:
        applied = signals.run(migrations.migrate(url))
    names = [f"{migration.version}_{migration.name}" for migration in applied]
    _report(
        options,
        {"applied": names, "schema_version": NEEDED},
        "\n".join([*(f"applied {name}" for name in names), f"The schema is at {NEEDED}."]),
    )


def seed_key(chosen: Settings, options: argparse.Namespace) -> None:
    """Create an admin key with exactly this secret, once."""
    secret = sys.stdin.readline().strip() if options.value == "-" else options.value
    key_rules.check_chosen(secret)
    key = key_rules.stored(secret, chosen.peppers[0], name="Seeded admin key", scopes=key_rules.ADMIN_SCOPES)

    peppers = None if options.new_pepper else [key_rules.fingerprint(pepper) for pepper in chosen.peppers]

    async def seed(door: Door) -> Any:
        return await keys.seed(console(door, "seed-key"), OPERATORS, OPERATOR, key, peppers)

    with _database(chosen):
        seeded = _through_the_door(chosen, seed)
    done = "Created" if seeded["created"] else "Nothing to do: it is there already,"
    _report(
        options,
        {"created": seeded["created"], "key_id": seeded["id"]},
        f"{done} admin key {key_rules.masked(key['prefix'], key['last_four'])} ({seeded['id']}) in {_place(chosen)}.",
    )


def sign_in_link(chosen: Settings, options: argparse.Namespace) -> None:
    """Print a link by which a user signs in to the console, once and within 10 minutes."""
    person = {"email": options.email} if options.email else {}
    address = options.at.rstrip("/") or f"http://127.0.0.1:{chosen.port}"
    with _database(chosen, created=False):
        made = _through_the_door(chosen, lambda door: _new_link(console(door, "sign-in-link"), chosen, person, address))
    _report(options, made, made["link"])


async def _new_link(operator: Door, chosen: Settings, person: dict[str, str], address: str) -> dict[str, str]:
    token = session_rules.token(secrets.token_bytes(session_rules.RANDOM_BYTES))
    made = await sessions.create_link(operator, person, key_rules.digest(token, chosen.peppers[0]))
    link = session_rules.link(address, token)
    return {"link": link, "email": made["email"], "expires_at": made["expires_at"]}


def sweep(chosen: Settings, options: argparse.Namespace) -> None:
    """End the holds of requests that were left open, at what they cost. For a scheduler, or after an outage."""

    async def once() -> Sweep:
        rooms = compose(chosen, environ=options.environ)
        try:
            return await rooms.sweeper.sweep()
        finally:
            await rooms.close()

    with _database(chosen, created=False):
        swept = signals.run(once())
    _report(
        options,
        dict(swept),
        f"{swept['settled']} settled, {swept['estimated']} estimated, {swept['released']} released, "
        f"{swept['waiting']} still unknown.",
    )


def audit(chosen: Settings, options: argparse.Namespace) -> None:
    """Prove the books from the tables alone. Ends with 1 and names each row that does not fit.

    --head prints the heads of the hash chains, signed, to be kept elsewhere. --against a head that was kept ends with 3
    when what was there then is not there now as it was.
    """
    patient = chosen.model_copy(update={"database_timeout_seconds": AUDIT_SECONDS})
    if options.head:
        with _database(chosen, created=False):
            head = _through_the_door(patient, chain_heads.take)
        print(json.dumps(chain_heads.signed(head, chosen.peppers[0])))
        return
    kept = chain_heads.verified(_read(options.against), chosen.peppers) if options.against else None

    with _database(chosen, created=False):
        books = _through_the_door(patient, _proof(kept))
    faults = [f"{fault['fault']} {fault['id']}: {json.dumps(fault['facts'])}" for fault in books["faults"]]
    counted = f"orgs {books['orgs']}, transfers {books['transfers']}, requests {books['requests']}"
    verdict = "The books do not agree:" if faults else "The books agree:"
    _report(options, books, "\n".join([f"{verdict} {counted}, open holds {books['open_holds']}.", *faults]))
    _refuse_rewritten(kept, books)
    if faults:
        raise CommandError(f"rows of the books that do not agree: {books['fault_count']}")


def _proof(kept: chain_heads.Head | None) -> Callable[[Door], Awaitable[dict[str, Any]]]:
    """The audit of a database, beside a head that was kept."""

    async def prove(door: Door) -> dict[str, Any]:
        books: dict[str, Any] = await credits.audit_books(door)
        return books if kept is None else books | {"rewritten": await chain_heads.differences(door, kept)}

    return prove


def _proof_of_backup(kept: chain_heads.Head | None) -> Callable[[Door], Awaitable[dict[str, Any]]]:
    async def prove(door: Door) -> dict[str, Any]:
        if kept and chain_heads.is_newer(kept, await chain_heads.take(door)):
            raise chain_heads.UnusableHead("the head is newer than the backup: use one that was taken before it")
        return await _proof(kept)(door)

    return prove


def _refuse_rewritten(kept: chain_heads.Head | None, books: dict[str, Any]) -> None:
    if kept and books["rewritten"]:
        raise RewrittenError(
            f"the books up to {kept['at']} are not what they were then: {', '.join(books['rewritten'])}"
        )


COUNTED = ("orgs", "transfers", "requests")
"""What is told of the books in a backup."""


def create_backup(chosen: Settings, options: argparse.Namespace) -> None:
    """Write a backup of the database into a file. A server may go on meanwhile."""
    file = options.to or chosen.data_folder / "backups" / backups.file_name(clock.now())
    with _database(chosen, migrated=False, created=False) as url:
        dumps.create(_needed(url), file)
        facts = {"file": str(file), "digest": verification.digest(file), "bytes": file.stat().st_size}
        noted = _noted(chosen, lambda door: backup_store.note(door, facts | {"file": file.name}))
    _report(options, facts | {"noted": noted}, f"Written to {file}: {facts['bytes']} bytes, SHA-256 {facts['digest']}.")


def verify_backup(chosen: Settings, options: argparse.Namespace) -> None:
    """Restore a backup into a Postgres of its own and audit the books in it. Ends with 1 if it cannot be relied on.

    --against a head that was kept ends with 3 when what was there then is not in the backup as it was.
    """
    kept = chain_heads.verified(_read(options.against), chosen.peppers) if options.against else None
    found = verification.verify(options.file, _proof_of_backup(kept), clock.now(), options.max_age_days)
    facts = {
        "file": options.file.name,
        "digest": verification.digest(options.file),
        "bytes": options.file.stat().st_size,
        "schema_version": found.schema_version,
        "as_of": found.as_of,
        "is_sound": not found.faults and not (found.books or {}).get("rewritten"),
        "faults": found.faults,
        "counts": {name: found.books[name] for name in COUNTED} if found.books else None,
    }
    noted = _noted_in_the_database(chosen, facts)
    _report(options, facts | {"books": found.books, "noted": noted}, _said_of(found, facts))
    if found.books:
        _refuse_rewritten(kept, found.books)
    if found.faults:
        raise CommandError(f"{options.file} cannot be relied on")


def restore_backup(chosen: Settings, options: argparse.Namespace) -> None:
    """Fill an empty database from a backup, and bring it up to date."""
    with _database(chosen, migrated=False) as url:
        if signals.run(verification.schema_version(_needed(url))):
            raise CommandError(
                "the database holds a Tollgate already: restore into an empty one, such as another TOLLGATE_DATA_DIR"
            )
        if faults := dumps.restore(url, options.file):
            raise CommandError(f"the backup was not restored completely: {faults[0]}")
        signals.run(migrations.migrate(url))
    restored = f"Restored into {_place(chosen)}. `python -m tollgate audit` proves it."
    _report(options, {"schema_version": NEEDED}, restored)


def _said_of(found: verification.Verification, facts: dict[str, Any]) -> str:
    verdict = "sound" if facts["is_sound"] else "not sound"
    lines = [f"{facts['file']} is {verdict}: {facts['bytes']} bytes, SHA-256 {facts['digest']}."]
    if found.books:
        counts = ", ".join(f"{name} {found.books[name]}" for name in COUNTED)
        lines.append(f"Taken at {found.as_of}, schema {found.schema_version}: {counts}.")
    return "\n".join([*lines, *found.faults])


def _needed(url: str) -> str:
    if not url:
        raise CommandError("backup needs DATABASE_URL (in Supabase: Connect, Session pooler)")
    return url


def _noted_in_the_database(chosen: Settings, facts: dict[str, Any]) -> bool:
    """A backup can be verified on a machine that has nothing else, and while the database is lost."""
    try:
        with _database(chosen, migrated=False, created=False):
            return _noted(chosen, lambda door: backup_store.note_verification(door, facts))
    except (CommandError, embedded.EmbeddedError) as error:
        print(f"tollgate: not noted in the database: {error}", file=sys.stderr)
        return False


def _noted(chosen: Settings, note: Callable[[Door], Awaitable[None]]) -> bool:
    """Whether the database knows of it, for its list of backups. One that is behind or lost does not."""
    try:
        _through_the_door(chosen, lambda door: note(console(door, "backup")))
    except TollgateError as error:
        print(f"tollgate: not noted in the database: {error.message}", file=sys.stderr)
        return False
    return True


def reconcile(chosen: Settings, options: argparse.Namespace) -> None:
    """Compare OpenRouter's bill of a day, yesterday if not said, with the books. Ends with 1 if they differ."""
    day = options.day or clock.now().date() - timedelta(days=1)
    patient = chosen.model_copy(update={"database_timeout_seconds": AUDIT_SECONDS})

    async def compare() -> dict[str, Any]:
        http = Http()
        door = open_door(patient, http)
        try:
            return await reconciler(chosen, door, http).ask(console(door, "reconcile"), day)
        finally:
            await door.close()
            await http.close()

    with _database(chosen, created=False):
        outcome = signals.run(compare())
    _report(options, {"day": day.isoformat(), **outcome}, reconciliation.as_text(day, outcome))
    if outcome["verdict"] != "agrees":
        raise CommandError(f"{day}: OpenRouter's bill is not what our books say, beyond RECONCILIATION_TOLERANCE")


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise chain_heads.UnusableHead(
            f"cannot read {file}: {getattr(error, 'strerror', None) or 'not text'}"
        ) from None


def rotate_vault(chosen: Settings, options: argparse.Namespace) -> None:
    """Encrypt all stored secrets with VAULT_KEY. Ends with 1 if one cannot be read."""
    with _database(chosen, created=False):
        rotated = _through_the_door(
            chosen, lambda door: rotation.rotate(console(door, "rotate-vault"), Vault(_with_vault(chosen).vault_keys))
        )
    _report(
        options,
        rotated._asdict(),
        f"Secrets encrypted again: {rotated.sealed}. All that can be read are encrypted with VAULT_KEY now.",
    )
    if rotated.unreadable:
        raise CommandError(
            f"no key of the vault can read {', '.join(rotated.unreadable)}: store these again, or delete them"
        )


def hf_token(chosen: Settings, options: argparse.Namespace) -> None:
    """Print a stored token of Hugging Face, for a server that downloads models."""
    with _database(chosen, created=False):
        found = _through_the_door(chosen, lambda door: vault.read(console(door, "hf-token"), "hf_token", options.name))
    print(Vault(_with_vault(chosen).vault_keys).open(found["secret"]).get_secret_value())


def demo(chosen: Settings, options: argparse.Namespace) -> None:
    """Serve with a database of its own and a demo key that has 5 credits. For trying out, never in production."""
    if chosen.production:
        raise CommandError("demo hands out a key, so it does not run with TOLLGATE_ENV=production; use serve")
    if not chosen.embedded:
        raise CommandError("demo brings a database of its own, and the settings name one: unset that, or use serve")
    if options.local:
        chosen = chosen.model_copy(update={"private_upstreams": True})
    with (
        server.bind(chosen.bind_host, chosen.port) as listener,
        _database(chosen),
        _sandbox(_with_agent_key(_with_vault(chosen))) as complete,
    ):
        secret = _kept(chosen.data_folder / "demo-key", _new_demo_key, key_rules.is_whole)
        address = server.address(listener)
        link = _through_the_door(chosen, lambda door: _seed_demo(door, chosen, secret, address))
        print(_welcome(chosen, address, secret, link), flush=True)
        with _agent_beside() if options.local else contextlib.nullcontext():
            server.serve(listener, partial(create_app, complete, environ=options.environ))


@contextlib.contextmanager
def _agent_beside() -> Iterator[None]:
    """An agent on this machine. It waits for the server, and ends with its engines when the server has ended. However
    that ends: its standard input is a pipe which nobody writes to, and which ends with this process."""
    lifeline, held = os.pipe()
    command = [sys.executable, "-m", "tollgate", AGENT, LOCAL, "--until-stdin-ends"]
    agent = subprocess.Popen(command, stdin=lifeline, start_new_session=True)
    os.close(lifeline)
    try:
        yield
    finally:
        os.close(held)
        agent.terminate()
        agent.wait()


async def _seed_demo(door: Door, chosen: Settings, secret: str, address: str) -> str:
    """Makes what the demo needs where it is missing. Answers a sign-in link for the operator."""
    operator = console(door, "demo")
    key = key_rules.stored(secret, chosen.peppers[0], name="Demo key", scopes=key_rules.MEMBER_SCOPES)
    org = {"id": "org_demo", "name": "Demo", "plan_id": "pro"}
    owner = {"id": "usr_demo", "email": "demo@localhost", "name": "Demo", "role": "member"}
    await keys.seed(operator, org, owner, key)
    nanos = DEMO_CREDITS * NANOS_PER_CREDIT
    await credits.grant(operator, org["id"], nanos, source="promotion", reason="To try it out", reference="demo")
    await keys.seed(operator, OPERATORS, OPERATOR, None)
    return await _link_of_demo(operator, chosen, address)


async def _link_of_demo(operator: Door, chosen: Settings, address: str) -> str:
    try:
        return (await _new_link(operator, chosen, {"user_id": OPERATOR["id"]}, address))["link"]
    except NotFound:
        return "none: the operator of the demo is disabled"


def _new_demo_key() -> str:
    return key_rules.mint("live", secrets.token_bytes(key_rules.RANDOM_BYTES))


def _with_agent_key(chosen: Settings) -> Settings:
    """With an AGENT_KEY of its own, unless one is set, so that this machine can be a host."""
    if chosen.agent_key is not None:
        return chosen
    made = _kept(chosen.data_folder / "agent-key", secrets.token_hex, lambda known: len(known) >= SHORTEST_PEPPER)
    return chosen.model_copy(update={"agent_key": SecretStr(made)})


def _with_vault(chosen: Settings) -> Settings:
    """With a VAULT_KEY. Where none is set, one is kept beside the embedded database, outside production."""
    if chosen.vault_key or chosen.production or not chosen.embedded:
        return chosen
    file = chosen.data_folder / "vault-key"
    key = _kept(file, lambda: secrets.token_hex(32), bool)
    if not settings.VAULT_KEY.fullmatch(key):
        raise CommandError(f"{file} does not hold 64 hexadecimal digits: put its key back, or set VAULT_KEY")
    return chosen.model_copy(update={"vault_key": SecretStr(key)})


def _kept(file: Path, make: Callable[[], str], is_usable: Callable[[str], bool]) -> str:
    """A secret that is made at the first start and kept in a file: the database could not tell it again."""
    try:
        known = file.read_text().strip() if file.exists() else ""
        if known and is_usable(known):
            return known
        secret = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secret + "\n")
    except OSError as error:
        raise CommandError(f"cannot keep a secret in {file}: {error.strerror}") from None
    return secret


def _welcome(chosen: Settings, address: str, secret: str, link: str) -> str:
    upstream = (
        "OpenRouter: completions cost real money"
        if chosen.openrouter_api_key
        else "built-in sandbox: answers are made up and free (set OPENROUTER_API_KEY for real ones)"
    )
    python = shlex.quote(sys.executable)
    return f"""
Tollgate {__version__} is at {address} (Ctrl-C stops it)

  database  embedded Postgres, data in {chosen.data_folder}
  upstream  {upstream}
  your key  {secret}
            a demo key with {DEMO_CREDITS} credits, kept in {chosen.data_folder / "demo-key"}

The operator console, once and within 10 minutes (`{python} -m tollgate sign-in-link` prints another link):

  {link}

The playground, for which you paste the key: {address}/ui

What is on the key:

  curl {address}/user/balance -H 'Authorization: Bearer {secret}'

A completion, and what it cost in the headers:

  curl {address}/v1/chat/completions -i \\
    -H 'Authorization: Bearer {secret}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "{DEMO_MODEL}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
"""


@contextlib.contextmanager
def _database(chosen: Settings, *, migrated: bool = True, created: bool = True) -> Iterator[str]:
    """The database, there for as long as the block runs. The embedded one is ours, so it is migrated too. Unless
    `created`, it must be there: the books of an empty database always agree."""
    if not chosen.embedded:
        yield database_url(chosen) if chosen.database_url else ""
        return
    if not created and not embedded.exists(chosen.data_folder):
        raise CommandError(
            f"there is no database in {chosen.data_folder}, and neither DATABASE_URL nor SUPABASE_URL is set: "
            "name the settings of the server, as in ENV_FILE=.env.local, or its TOLLGATE_DATA_DIR"
        )
    with embedded.running(chosen.data_folder) as url:
        if migrated:
            signals.run(migrations.migrate(url))
        yield url


def _place(chosen: Settings) -> str:
    return f"the embedded database of {chosen.data_folder}" if chosen.embedded else "the database of the settings"


@contextlib.contextmanager
def _sandbox(chosen: Settings) -> Iterator[Settings]:
    """A sandbox of our own, for test keys, and in development for all where no OpenRouter key is set."""
    if chosen.sandbox_base_url:
        yield chosen
        return
    with side_process.serving("tollgate.sandbox") as address:
        ours: dict[str, Any] = {"sandbox_base_url": address + API}
        if chosen.openrouter_api_key is None and not chosen.production:
            ours |= {"openrouter_base_url": address + API, "openrouter_api_key": SecretStr("sandbox")}
        yield chosen.model_copy(update=ours)


def _through_the_door(chosen: Settings, work: Callable[[Door], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        http = Http()
        door = open_door(chosen, http)
        try:
            return await work(door)
        finally:
            await door.close()
            await http.close()

    return signals.run(run())


def _report(options: argparse.Namespace, facts: dict[str, Any], sentence: str) -> None:
    print(json.dumps(facts) if options.json else sentence)


def _env_file() -> Path | None:
    """ENV_FILE, or .env where there is one."""
    if named := os.environ.get("ENV_FILE"):
        file = Path(named)
        if not file.is_file():
            raise settings.SettingsError([f"ENV_FILE: there is no file {named}"])
        return file
    usual = Path(".env")
    return usual if usual.is_file() else None


def _stop(number: int, frame: object) -> None:
    """An ordinary exit, so that what we started is ended on the way out."""
    raise SystemExit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tollgate", description="A credit-billing proxy.", epilog=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    reports = argparse.ArgumentParser(add_help=False)
    reports.add_argument("--json", action="store_true", help="report as JSON")

    def add(name: str, command: Callable[[Settings, argparse.Namespace], None], **more: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=command.__doc__, description=command.__doc__, **more)
        added.set_defaults(command=command)
        return added

    add("serve", serve)
    add("migrate", migrate, parents=[reports])
    seeding = add("seed-key", seed_key, parents=[reports])
    seeding.add_argument("value", help="the secret, at least 20 characters; - reads it from standard input")
    seeding.add_argument(
        "--new-pepper", action="store_true", help="even if no key in the database was made with this KEY_PEPPER"
    )
    linking = add("sign-in-link", sign_in_link, parents=[reports])
    linking.add_argument("--email", help="the user's email; without it, the only active admin")
    linking.add_argument(
        "--at", default="", metavar="URL", help="where Tollgate is; http://127.0.0.1 and PORT if not said"
    )
    add("sweep", sweep, parents=[reports])
    auditing = add("audit", audit, parents=[reports]).add_mutually_exclusive_group()
    auditing.add_argument("--head", action="store_true", help="print the signed heads of the hash chains as JSON")
    auditing.add_argument("--against", metavar="FILE", help="a head that was kept; - reads it from standard input")
    backing_up = commands.add_parser("backup", help="create, verify or restore a backup of the database")
    _add_backups(backing_up.add_subparsers(required=True, metavar="COMMAND"), reports)
    reconciling = add("reconcile", reconcile, parents=[reports])
    reconciling.add_argument("--day", type=date.fromisoformat, metavar="YYYY-MM-DD", help="a day in UTC that is over")
    add("rotate-vault", rotate_vault, parents=[reports])
    printing = add("hf-token", hf_token)
    printing.add_argument("name", nargs="?", default="default", help="the name of the token; default if not said")
    add("demo", demo).add_argument(LOCAL, action="store_true", help="run models on this machine, too")
    add(AGENT, local_agent, add_help=False)
    return parser


def _add_backups(commands: Any, reports: argparse.ArgumentParser) -> None:
    for name, command in (("create", create_backup), ("verify", verify_backup), ("restore", restore_backup)):
        added = commands.add_parser(name, help=command.__doc__, description=command.__doc__, parents=[reports])
        added.set_defaults(command=command)
        if command is create_backup:
            added.add_argument("--to", type=Path, metavar="FILE", help="the file; in the data folder if not said")
        else:
            added.add_argument("file", type=Path, help="a backup, or a plain dump (.sql, .sql.gz), such as of Supabase")
        if command is verify_backup:
            added.add_argument("--against", metavar="FILE", help="a head that was kept: see audit --head")
            added.add_argument(
                "--max-age-days", type=float, default=backups.USUAL_DAYS, help="how old it may be; 7 if not said"
            )


if __name__ == "__main__":
    sys.exit(main())
