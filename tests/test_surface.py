"""
The shape of the house: what is exported, who imports whom, how long files and functions are.
"""

import ast
import importlib
import pickle
import re
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest

import kling_async
from kling_async import errors, manifest

ROOT = Path(kling_async.__file__).parent
TESTS = Path(__file__).parent

LAYERS = {
    "words": ["_refusals", "errors", "transport", "points", "_urls", "pictures", "masks", "edits", "models", "events"],
    "rules": [
        "_endpoints",
        "_auth",
        "_signatures",
        "_environment",
        "policy",
        "costs",
        "_budget",
        "_ids",
        "_ledger",
        "jobs",
        "_codec",
        "_submit",
        "_tasks",
        "_replies",
        "_hints",
        "_outputs",
        "_cells",
        "_columns",
        "_tables",
        "_rows",
        "manifest",
    ],
    "wires": [
        "_cut",
        "_bell",
        "_shelter",
        "_parts",
        "_writer",
        "_download",
        "_routes",
        "_flights",
        "_aiohttp",
        "_bridge",
        "_open",
    ],
    "flows": [
        "slots",
        "_stored",
        "_sqlite",
        "_pool",
        "_postgres",
        "stores",
        "_lease",
        "_exchange",
        "_search",
        "_doubt",
        "_create",
        "_reconcile",
        "_inbox",
        "_listing",
        "_poller",
        "_watch",
        "_pages",
        "_calls",
        "_receiver",
        "webhooks",
        "client",
        "selection",
        "batch",
        "_warm",
    ],
    "edges": ["simulator", "pytest_plugin", "__init__", "dbos", "cli", "__main__"],
}
ORDER = [name for names in LAYERS.values() for name in names]
PURE = {*LAYERS["words"], *LAYERS["rules"]}
BARRED_FROM_PURE = {"anyio", "asyncio", "aiohttp", "time", "random", "trio"}
MAY_USE_ASYNCIO = {"_cut", "_bell", "_flights", "_aiohttp", "_bridge", "_open", "simulator._http", "dbos._engine"}
SIMULATOR_MAY_USE = {*PURE, "_download", "simulator"}
USERS = [
    "errors",
    "masks",
    "models",
    "edits",
    "points",
    "pictures",
    "policy",
    "costs",
    "manifest",
    "stores",
    "transport",
    "client",
    "webhooks",
    "selection",
    "dbos",
]


def modules():
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(ROOT.rglob("*.py"))
    }


def imports(name, path, *, running=True):
    """
    What a module imports, as (top-level name, module of ours or None); TYPE_CHECKING blocks are left out.
    """
    tree = ast.parse(path.read_text())
    exempt = set()
    if running:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                exempt.update(id(inner) for inner in ast.walk(node))
    package = name.split(".") if path.name == "__init__.py" and name != "__init__" else name.split(".")[:-1]
    found = []
    for node in ast.walk(tree):
        if id(node) in exempt:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append(node.module.split(".")[0] if node.module != "kling_async" else ".__init__")
            if node.module.startswith("kling_async."):
                found[-1] = f".{node.module.removeprefix('kling_async.').split('.')[0]}"
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            found += [f".{base[0] if base else each}" for each in names]
    return found


def test_every_module_has_its_place_in_the_layers():
    """
    The table of this test names each module once, and no other.
    """
    assert sorted(ORDER) == sorted({name.split(".")[0] for name in modules()})


@pytest.mark.parametrize("name", modules())
def test_a_module_imports_only_from_above_it_in_the_table(name):
    """
    Lower layers, and within a layer what stands before it.
    """
    top = name.split(".")[0]
    for found in imports(name, modules()[name]):
        if found.startswith(".") and found != f".{top}":
            assert ORDER.index(found[1:]) < ORDER.index(top), found


@pytest.mark.parametrize("name", sorted(PURE))
def test_words_and_rules_know_neither_loop_nor_clock_nor_chance(name):
    """
    They are functions over values: time and chance come in as arguments.
    """
    assert set() == BARRED_FROM_PURE & set(imports(name, modules()[name]))


def test_asyncio_is_known_to_the_wires_the_simulators_server_and_the_engine_alone():
    """
    Everything that waits elsewhere is written once, on anyio.
    """
    users = {name for name, path in modules().items() if "asyncio" in imports(name, path)}
    assert users <= MAY_USE_ASYNCIO


def test_aiohttp_is_imported_by_three_modules():
    """
    The pool, the simulator's server, and the handler of webhooks for those whose own server it is.
    """
    users = {name for name, path in modules().items() if "aiohttp" in imports(name, path)}
    assert {"_aiohttp", "simulator._http", "webhooks"} == users


def test_the_simulator_uses_words_rules_and_the_saving_of_files():
    """
    It must not share the client's flows: it is what they are judged by.
    """
    for name, path in modules().items():
        if name.startswith("simulator"):
            ours = {found[1:] for found in imports(name, path) if found.startswith(".")}
            assert ours <= SIMULATOR_MAY_USE, name


@pytest.mark.parametrize("name", modules())
def test_no_module_is_longer_than_400_lines_and_no_function_than_60(name):
    """
    Long functions are mostly docstring here; their statements stay under forty lines.
    """
    text = modules()[name].read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert length <= 40, node.name


@pytest.mark.parametrize("name", modules())
def test_no_signature_says_any_and_no_handler_catches_everything(name):
    """
    JSON is `object` until the codec has structured it; a bare BaseException is raised again.
    """
    text = modules()[name].read_text()
    assert "Any" not in {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    assert not re.search(r"except Exception\b", text)
    assert "from __future__" not in text


def test_what_is_exported_exists_and_nothing_else_is_public():
    """
    A tuple without repeats, and every public name of the package in it.
    """
    assert isinstance(kling_async.__all__, tuple)
    assert len(set(kling_async.__all__)) == len(kling_async.__all__)
    assert [] == [name for name in kling_async.__all__ if not hasattr(kling_async, name)]
    submodules = {name.split(".")[0] for name in modules()}
    public = {name for name in dir(kling_async) if name[0] not in "_@" and name not in submodules}
    assert {*public, "__version__"} == set(kling_async.__all__)
    assert set(vars(kling_async)) <= set(dir(kling_async))


@pytest.mark.parametrize("name", USERS)
def test_a_public_module_says_what_it_offers(name):
    """
    Plain names have a tuple `__all__` whose names exist.
    """
    module = importlib.import_module(f"kling_async.{name}")
    assert isinstance(module.__all__, tuple)
    assert all(hasattr(module, each) for each in module.__all__)


def test_every_error_is_exported_and_under_one_root():
    """
    The tree of the docstring is the tree of the classes.
    """
    drawn = set(re.findall(r"\b\w+Error\b", errors.__doc__.partition("Each carries")[0]))
    classes = {name for name in errors.__all__ if name.endswith("Error")}
    assert drawn == classes | {"ValueError"}
    assert classes <= set(kling_async.__all__)
    assert all(issubclass(getattr(errors, name), kling_async.KlingError) for name in classes)


def example(cls):
    now = datetime(2026, 11, 20, tzinfo=UTC)
    known = {
        kling_async.InvalidInputError: lambda: cls("field", "reason"),
        kling_async.ManifestError: lambda: cls("clips.csv", [manifest.Fault(3, "prompt", "is empty")]),
        kling_async.UnknownOutcomeError: lambda: cls(external_task_id="order-1", attempts=1, first_sent_at=now),
        kling_async.SelectionDirtyError: lambda: cls([3, 1]),
        kling_async.SelectionRejectedError: lambda: cls("no", selection_status=3),
        kling_async.TaskFailedError: lambda: cls(kling_async.Task(task_id="1", status="failed")),
    }
    if cls in known:
        return known[cls]()
    if issubclass(cls, kling_async.SubmissionError):
        return cls("text", external_task_id="order-1")
    return cls("text")


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name.endswith("Error")])
def test_every_error_pickles_with_its_data(name):
    """
    Errors cross processes: class, text and attributes survive.
    """
    error = example(getattr(errors, name))
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error))
    assert (type(error), str(error), vars(error)) == (type(again), str(again), vars(again))


def documented(node, owner=""):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name[0] != "_":
            yield f"{owner}{child.name}", ast.get_docstring(child)
            if isinstance(child, ast.ClassDef):
                yield from documented(child, f"{child.name}.")


def test_every_public_name_is_documented():
    """
    Modules, classes, functions and methods alike.
    """
    for name, path in modules().items():
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), name
        assert [] == [f"{name}.{each}" for each, text in documented(tree) if not text]


def test_every_test_says_what_holds():
    """
    One sentence of docstring for each test, these included.
    """
    for path in TESTS.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_every_module_of_the_lower_layers_has_its_own_test_file():
    """
    One for each module of words, rules, wires and flows.
    """
    missing = [
        name
        for layer in ("words", "rules", "wires", "flows")
        for name in LAYERS[layer]
        if not (TESTS / f"test_{name.strip('_')}.py").exists()
    ]
    assert [] == missing


def test_importing_the_package_imports_nothing_heavy():
    """
    Neither aiohttp nor numpy nor trio nor an engine of workflows nor the simulator, whatever is installed.
    """
    script = (
        "import sys, kling_async;"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), 'kling_async.simulator' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    loaded = found.stdout.split()
    heavy = {"aiohttp", "numpy", "trio", "PIL", "cv2", "av", "jwt", "dbos", "sqlalchemy", "psycopg", "pyarrow"}
    assert set() == heavy & set(loaded)
    assert "False" == loaded[-1]


def test_the_version_stands_in_the_changelog():
    """
    What is released is described, newest first.
    """
    changelog = TESTS.parent / "CHANGELOG.md"
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog.read_text(), re.MULTILINE)
    assert kling_async.__version__ == versions[0]


def test_docstring_examples_hold():
    """
    Every `>>>` of the lower layers runs and says what it shows.
    """
    import doctest

    failures = attempted = 0
    names = {name: getattr(kling_async, name) for name in kling_async.__all__}
    for name in [
        *LAYERS["words"],
        *LAYERS["rules"],
        "stores",
        "_sqlite",
        "_postgres",
        "_inbox",
        "client",
        "selection",
        "jobs",
        "slots",
        "batch",
        "dbos._runner",
    ]:
        module = importlib.import_module(f"kling_async.{name}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", kling_async.KlingWarning)
            found = doctest.testmod(module, extraglobs=names)
        failures, attempted = failures + found.failed, attempted + found.attempted
    assert 0 == failures
    assert attempted > 20
