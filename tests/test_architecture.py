"""Holds the house to its plan: who may import whom, what the core may touch, where a surprise may be caught.

The plan is drawn in `gateway/__init__.py`; here it is data. Modules are read as syntax trees, so that an import inside
a function or under TYPE_CHECKING counts too. A module without a place in the plan fails.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOUNS = {"errors", "address", "model"}
PURE = NOUNS | {
    "providers",
    "retention",
    "evidence",
    "proof",
    "receipts",
    "headers",
    "steps",
    "tokens",
    "consent",
    "law",
    "dialogue",
    "ledger",
    "decisions",
    "dialects",
}
MAIL = {
    "mime",
    "prose",
    "lexicon",
    "promotion",
    "reconsent",
    "mend",
    "downgrade",
    "footer",
    "pieces",
    "sight",
    "redirectors",
    "leaks",
    "slots",
    "placeholders",
    "classify",
    "stamp",
    "sign",
    "report",
    "summary",
    "preflight",
}
CORE = PURE | MAIL
CORE |= {"published", "policy", "manner", "hindsight", "pretence", "brake", "pacing", "activity", "rights"}
CORE.add("announcements")
SHELL = CORE | {"ids", "passwords", "campaigns", "summaries", "copies", "store", "config", "metrics"}

# Each room of gateway/ and the rooms that it may import. A package is one room: its modules may import one another.
HOUSE: dict[str, set[str]] = {
    "errors": set(),
    "findings": set(),
    "address": {"errors"},
    "model": {"errors", "address"},
    "ids": set(),
    "bells": set(),
    "providers": NOUNS,
    "passwords": set(),
    "headers": NOUNS,
    "steps": NOUNS,
    "tokens": NOUNS,
    "consent": NOUNS,
    "law": NOUNS | {"consent"},
    "evidence": NOUNS | {"consent"},
    "receipts": NOUNS | {"consent", "proof"},
    "proof": NOUNS | {"consent", "evidence", "law"},
    "hindsight": NOUNS | {"consent", "law", "policy"},
    "retention": NOUNS | {"consent"},
    "activity": NOUNS | {"consent"},
    "announcements": NOUNS | {"consent"},
    "rights": NOUNS | {"consent"},
    "dialogue": NOUNS,
    "dialects": NOUNS | {"headers"},
    "ledger": NOUNS | {"consent"},
    "decisions": NOUNS,
    "mime": NOUNS | {"headers", "pieces", "steps"},
    "prose": NOUNS | {"headers", "mime"},
    "lexicon": set(),
    "promotion": NOUNS | {"headers", "prose"},
    "classify": NOUNS | {"headers", "dialects"},
    "mend": NOUNS | {"headers", "mime", "steps"},
    "downgrade": NOUNS | {"headers", "mime", "mend", "steps"},
    "footer": NOUNS | {"mime"},
    "pieces": set(),
    "placeholders": NOUNS | {"pieces"},
    "sight": {"pieces"},
    "redirectors": {"sight"},
    "leaks": NOUNS | {"headers", "mime", "pieces", "sight"},
    "slots": NOUNS | {"mime", "steps", "mend", "footer", "pieces", "placeholders", "sight", "redirectors"},
    "reconsent": NOUNS | {"headers", "mime", "slots"},
    "stamp": NOUNS
    | {"headers", "mime", "dialects", "mend", "downgrade", "footer", "slots", "reconsent", "leaks", "prose"},
    "sign": NOUNS | {"headers"},
    "published": {"findings", "sign"},
    "report": NOUNS | {"downgrade", "headers", "mend"},
    "policy": NOUNS | {"consent", "law"},
    "pretence": NOUNS | {"headers", "prose"},
    "manner": NOUNS | {"consent", "law"},
    "pacing": NOUNS,
    "preflight": NOUNS | {"headers", "mend", "pieces", "prose", "sign", "tokens", "sight", "redirectors"},
    "config": NOUNS | {"providers", "law", "retention", "dialects", "announcements"},
    "metrics": NOUNS,
    "store": NOUNS
    | {"providers", "consent", "evidence", "retention", "rights", "law", "tokens", "ledger", "decisions", "ids"},
    "brake": NOUNS,
    "shadow": NOUNS,
    "picture": set(),
    "summary": NOUNS,
    "resolver": {"published"},
    "keywatch": {"published", "resolver", "sign", "store"},
    "copies": CORE | {"ids"},
    "campaigns": SHELL - {"config"},
    "summaries": SHELL - {"config"},
    "probe": set(),
    "listener": SHELL - {"config"},
    "smarthost": SHELL - {"config"},
    "lanes": SHELL - {"config"} | {"smarthost"},
    "noticing": SHELL - {"config"},
    "explaining": SHELL - {"config"},
    "delivery": SHELL - {"config"} | {"smarthost", "lanes", "noticing", "explaining", "bells"},
    "console": SHELL | {"picture"},
    "supervisor": set(),
    "installation": SHELL | {"resolver"},
    "watch": SHELL - {"config"} | {"installation"},
    "housekeeping": SHELL - {"config"},
    "webhooks": SHELL,
    "overview": SHELL | {"shadow"},
    "imports": NOUNS | {"consent"},
    "cli": SHELL
    | {
        "findings",
        "published",
        "resolver",
        "keywatch",
        "installation",
        "imports",
        "service",
        "shadow",
        "console",
        "overview",
        "picture",
        "webhooks",
    },
    "__init__": set(),
    "__main__": {"cli"},
}
FOR_THE_SITE = NOUNS | {"tokens", "consent", "store", "config", "metrics"}
TIES_EVERYTHING = "service"

# The core takes values and returns values: it neither looks at the world nor changes it.
WORLD = {
    *("aiohttp", "aiosmtpd", "asyncio", "glob", "io", "logging", "multiprocessing", "os", "pathlib", "pysqlite3"),
    *("random", "secrets", "select", "shutil", "signal", "socket", "sqlite3", "sqlite_utils", "ssl", "subprocess"),
    *("tempfile", "threading", "time", "uuid", "uvloop"),
}
WORLDLY_CALLS = {"open", "print", "input", "now", "utcnow", "today", "urandom"}
MEMORY = {"io.BytesIO"}
"""What a module of the world has that does not reach beyond this process's memory."""

# Where a surprise ends: the listener's hooks, the delivery loop, the web middleware, a child process before it exits,
# one call to a webhook.
BOUNDARIES = {
    *("gateway.listener", "gateway.delivery", "gateway.console", "gateway.supervisor", "gateway.webhooks.deliverer"),
    *("gateway.imports.ahead", "unsubscribe_site"),
}

# What takes long to load, and what a command that neither serves nor draws has no use for.
HEAVY = {"aiohttp", "aiosmtpd", "dns", "jinja2", "jwt", "pydantic", "rich", "sqlite_utils", "uvloop"}


def modules() -> dict[str, Path]:
    paths = [path for package in ("gateway", "unsubscribe_site") for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(paths)}


MODULES = modules()
every_module = pytest.mark.parametrize("name", MODULES)


def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text("utf-8"), str(MODULES[name]))


def imports_of(name: str, tree: ast.Module) -> Iterator[str]:
    """Yield what a module imports, as absolute dotted names; `from a import b` is `a.b`, which may be a module."""
    package = name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def room_of(name: str) -> str:
    return name.split(".")[1]


def rooms_imported(name: str, tree: ast.Module) -> set[str]:
    return {room_of(target) for target in imports_of(name, tree) if target.startswith("gateway.")}


def may_import(name: str) -> set[str]:
    if name.startswith("unsubscribe_site"):
        return FOR_THE_SITE
    room = room_of(name)
    return set(HOUSE) | {TIES_EVERYTHING} if room == TIES_EVERYTHING else HOUSE.get(room, set()) | {room}


def trespasses(name: str, tree: ast.Module) -> set[str]:
    return rooms_imported(name, tree) - may_import(name)


def worldly(name: str, tree: ast.Module) -> set[str]:
    """Return what a module uses of the world: modules that it imports and functions that it calls."""
    imported = {target for target in imports_of(name, tree) if not target.startswith("gateway.")} - MEMORY
    found = {part for target in imported for part in WORLD if f"{target}.".startswith(f"{part}.")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found |= {called} & WORLDLY_CALLS
    return found


def swallowers(tree: ast.Module) -> list[int]:
    """Return the lines of handlers that take every exception and neither raise nor hand it on to who waits for it."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and _takes_everything(node) and not _passes_on(node)
    ]


def _takes_everything(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(one is None or getattr(one, "id", "") in ("Exception", "BaseException") for one in caught)


def _passes_on(handler: ast.ExceptHandler) -> bool:
    return any(
        isinstance(node, ast.Raise) or (isinstance(node, ast.Attribute) and node.attr == "set_exception")
        for node in ast.walk(handler)
    )


def test_every_room_has_a_place_in_the_plan() -> None:
    rooms = {room_of(name) for name in MODULES if name.startswith("gateway.")}
    assert rooms - set(HOUSE) - {TIES_EVERYTHING} == set(), "say in HOUSE who may import it, and what it may import"
    assert (set(HOUSE) | CORE).union(*HOUSE.values()) - rooms == set(), "nothing of that name is built"


@pytest.mark.parametrize("room", sorted(CORE - NOUNS))
def test_no_door_of_the_core_stands_open_that_nobody_uses(room: str) -> None:
    names = [name for name in MODULES if name.startswith("gateway.") and room_of(name) == room]
    used = set[str]().union(*(rooms_imported(name, tree_of(name)) for name in names))
    assert HOUSE[room] - used - NOUNS == set()


@every_module
def test_imports_point_inwards(name: str) -> None:
    assert trespasses(name, tree_of(name)) == set()


@every_module
def test_only_the_service_starts_the_site(name: str) -> None:
    if name.startswith("gateway.") and room_of(name) != TIES_EVERYTHING:
        assert not [target for target in imports_of(name, tree_of(name)) if target.startswith("unsubscribe_site")]


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("gateway.") and room_of(name) in CORE])
def test_the_core_does_not_touch_the_world(name: str) -> None:
    assert worldly(name, tree_of(name)) == set()


@every_module
def test_surprises_are_caught_at_the_boundaries_only(name: str) -> None:
    if not any(f"{name}.".startswith(f"{boundary}.") for boundary in BOUNDARIES):
        assert swallowers(tree_of(name)) == []


@every_module
def test_a_module_opens_by_saying_what_it_is_for(name: str) -> None:
    lines = (ast.get_docstring(tree_of(name)) or "").splitlines()
    assert lines, f"{name} does not say what it is for"
    assert lines[0].endswith((".", ":", "?")), f"the first line of {name} is not a sentence"


@pytest.mark.parametrize(
    ("name", "source", "guest"),
    [
        ("gateway.policy", "from gateway.store import Store", "store"),
        ("gateway.sign", "from gateway import stamp", "stamp"),
        ("gateway.listener.door", "from ..delivery import Delivery", "delivery"),
        ("gateway.delivery", "def late() -> None:\n    import gateway.listener.protocol", "listener"),
        ("unsubscribe_site.app", "from gateway.policy import decide", "policy"),
    ],
)
def test_a_trespasser_is_seen(name: str, source: str, guest: str) -> None:
    assert trespasses(name, ast.parse(source)) == {guest}


def test_a_glance_at_the_world_is_seen() -> None:
    source = "import os.path\nfrom datetime import datetime\nnow = datetime.now()\nopen('/etc/passwd')"
    assert worldly("gateway.policy", ast.parse(source)) == {"os", "now", "open"}


def test_a_swallowed_surprise_is_seen() -> None:
    source = "try:\n    pass\nexcept (OSError, Exception):\n    pass\ntry:\n    pass\nexcept BaseException:\n    raise"
    assert swallowers(ast.parse(source)) == [3]


def test_every_part_of_the_world_exists() -> None:
    theirs = {"aiohttp", "aiosmtpd", "pysqlite3", "sqlite_utils", "uvloop"}
    assert WORLD - theirs <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "command",
    [
        *("consent record", "consent show", "customers add", "dkim dns", "explain", "ledger verify", "logins add"),
        *("migrate", "person erase", "queue list", "status", "streams pause", "suppressions add", "tokens add"),
    ],
)
def test_a_command_loads_only_what_it_needs(command: str) -> None:
    program = [sys.executable, "-X", "importtime", "-m", "gateway", *command.split(), "--help"]
    told = subprocess.run(program, cwd=ROOT, check=True, capture_output=True, text=True).stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.splitlines()}
    assert "gateway" in loaded
    assert loaded & HEAVY == set()
