"""The table of layers: imports inside minihub go down only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "minihub"

#: Layer of each module or package, the longest matching name counts.
LAYERS = {
    "minihub": 0,
    "minihub.errors": 0,
    "minihub.urls": 0,
    "minihub.clock": 0,
    "minihub.tokens": 0,
    "minihub.filenames": 0,
    "minihub.signing": 0,
    "minihub.subdomains": 0,
    "minihub.runtime": 0,
    "minihub.durations": 0,
    "minihub.texts": 0,
    "minihub.readable": 0,
    "minihub.throttle": 0,
    "minihub.rest": 1,
    "minihub.hublock": 1,
    "minihub.aio": 1,
    "minihub.traits": 1,
    "minihub.options": 1,
    "minihub.options_later": 1,
    "minihub.config": 1,
    "minihub.config_python": 1,
    "minihub.config_render": 1,
    "minihub.config_urls": 1,
    "minihub.config_values": 1,
    "minihub.config_check": 1,
    "minihub.config_unfit": 1,
    "minihub.upstream": 1,
    "minihub.config_yaml": 1,
    "minihub.standins": 1,
    "minihub.standin_utils": 1,
    "minihub.cookiesecret": 1,
    "minihub.logs": 1,
    "minihub.crypto": 1,
    "minihub.dburl": 1,
    "minihub.metrics": 1,
    "minihub.websettings": 1,
    "minihub.prepared": 2,
    "minihub.models": 2,
    "minihub.store": 2,
    "minihub.database": 2,
    "minihub.sqlitefiles": 2,
    "minihub.confinement": 2,
    "minihub.cpu": 2,
    "minihub.landlock": 1,
    "minihub.ports": 1,
    "minihub.rlimits": 1,
    "minihub.usage": 2,
    "minihub.scopes": 2,
    "minihub.proxy": 2,
    "minihub.startwords": 1,
    "minihub.process": 2,
    "minihub.machine": 2,
    "minihub.launcher": 2,
    "minihub.launchpad": 1,
    "minihub.processtable": 1,
    "minihub.warm": 2,
    "minihub.warmplan": 2,
    "minihub.warmpool": 2,
    "minihub.warmparent": 2,
    "minihub.warmchild": 2,
    "minihub.warmstale": 2,
    "minihub.warmlearn": 2,
    "minihub.warmready": 2,
    "minihub.warmrun": 2,
    "minihub.warmroot": 2,
    "minihub.warmguard": 2,
    "minihub.warmrights": 2,
    "minihub.warmstart": 3,
    "minihub.burst": 3,
    "minihub.qr": 1,
    "minihub.accounts": 3,
    "minihub.ownerlink": 3,
    "minihub.classbook": 3,
    "minihub.serverrows": 3,
    "minihub.upgrade": 3,
    "minihub.roles": 3,
    "minihub.oauth": 3,
    "minihub.activity": 3,
    "minihub.profiles": 3,
    "minihub.announcements": 3,
    "minihub.audit": 3,
    "minihub.authstate": 3,
    "minihub.census": 3,
    "minihub.limits": 3,
    "minihub.line": 3,
    "minihub.overrides": 3,
    "minihub.spawnernames": 3,
    "minihub.serverenv": 3,
    "minihub.watchdog": 3,
    "minihub.directory": 3,
    "minihub.server": 3,
    "minihub.registry": 3,
    "minihub.spawner": 3,
    "minihub.orphans": 3,
    "minihub.deadline": 3,
    "minihub.local": 3,
    "minihub.proxies": 3,
    "minihub.ownproxy": 3,
    "minihub.proxyclient": 2,
    "minihub.proxyfacts": 2,
    "minihub.auth": 3,
    "minihub.services": 3,
    "minihub.addresses": 3,
    "minihub.hookinfo": 2,
    "minihub.readiness": 0,
    "minihub.hub": 4,
    "minihub.startcheck": 4,
    "minihub.hubwatch": 4,
    "minihub.people": 4,
    "minihub.caretaker": 4,
    "minihub.gauges": 4,
    "minihub.parts": 4,
    "minihub.roster": 4,
    "minihub.hubroutes": 4,
    "minihub.culler": 4,
    "minihub.cullpass": 4,
    "minihub.hubculler": 4,
    "minihub.servicerunner": 4,
    "minihub.web": 5,
    "minihub.app": 6,
    "minihub.classmode": 6,
    "minihub.doctor": 6,
    "minihub.manage": 6,
    "minihub.archive": 3,
    "minihub.backup": 6,
    "minihub.importer": 6,
    "minihub.servicefile": 6,
    "minihub.manage_servers": 6,
    "minihub.manage_class": 6,
    "minihub.cli": 7,
    "minihub.verbs_data": 7,
    "minihub.verbs_class": 7,
    "minihub.commandline": 7,
    "minihub.cullverb": 7,
    "minihub.__main__": 7,
    "minihub._bootstrap": 7,
    "minihub.bundle": 7,
    "minihub.zipform": 7,
}

#: The proxy and the launcher run without site-packages; cull imports nothing heavy.
STANDARD_LIBRARY_ONLY = (
    "minihub.__main__",
    "minihub._bootstrap",
    "minihub.auth.pamsession",
    "minihub.bundle",
    "minihub.launcher",
    "minihub.proxy",
    "minihub.runtime",
    "minihub.warmchild",
    "minihub.warmguard",
    "minihub.warmlearn",
    "minihub.warmparent",
    "minihub.warmready",
    "minihub.warmrights",
    "minihub.warmstale",
    "minihub.zipform",
    "minihub.cull",
    "minihub.rest",
)
FOREIGN = {
    "bottle",
    "jinja2",
    "markupsafe",
    "oauthlib",
    "pamela",
    "peewee",
    "prometheus_client",
    "psutil",
    "segno",
    "statsd",
    "traitlets",
    "waitress",
    "yaml",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(name: str) -> int:
    while name not in LAYERS:
        name, dot, _ = name.rpartition(".")
        assert dot, f"{name} has no layer: add it to the table"
    return LAYERS[name]


def imports(path: Path) -> set[str]:
    """Return the absolute names of the modules that ``path`` imports when it runs."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in walk_running(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            found.update(
                f"{base}.{alias.name}" if is_module(f"{base}.{alias.name}") else base
                for alias in node.names
            )
    return found


def walk_running(tree: ast.AST):
    """Walk all nodes except the bodies of ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from walk_running(node)


def is_module(name: str) -> bool:
    path = ROOT / Path(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down_only(path):
    own = layer(module_name(path))
    for target in imports(path):
        if target == "minihub" or target.startswith("minihub."):
            assert layer(target) <= own, f"{module_name(path)} imports {target}, which lies above"


def test_no_file_is_too_long():
    places = ["minihub", "tests", "benchmarks", "scripts"]
    files = [
        *ROOT.glob("*.py"),
        *(path for place in places for path in (ROOT / place).rglob("*.py")),
    ]
    assert len(files) > 300
    assert [path for path in files if len(path.read_text().splitlines()) > 600] == []


def in_proxy(name):
    return f"{name}.".startswith("minihub.proxy.")


def test_store_side_and_proxy_side_do_not_meet():
    """The two halves of the second layer know nothing of each other."""
    for path in MODULES:
        name = module_name(path)
        for target in imports(path):
            if in_proxy(name):
                assert target.split(".")[0] not in FOREIGN
                assert target not in ("minihub.store", "minihub.models", "minihub.process")
            if in_proxy(target):
                assert in_proxy(name) or name in ("minihub.cli", "minihub.__main__"), name


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_only_few_modules_use_psutil(path):
    few = ("process", "processtable", "usage", "machine", "bundle")
    if module_name(path) not in [f"minihub.{name}" for name in few]:
        assert "psutil" not in {target.split(".")[0] for target in imports(path)}


def test_standard_library_only_where_promised():
    for path in MODULES:
        if module_name(path).startswith(STANDARD_LIBRARY_ONLY):
            assert not {target.split(".")[0] for target in imports(path)} & FOREIGN


def test_every_module_says_what_it_is_for():
    for path in MODULES:
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        if path.read_text().strip():
            assert docstring, f"{module_name(path)} has no head"
