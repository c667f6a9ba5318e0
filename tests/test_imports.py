"""
The package as it is imported: nothing before it is asked for, then what was asked for, in fresh processes.
"""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import kling_async
from benchmarks import imports
from kling_async import stores

ROOT = Path(kling_async.__file__).parent
TREE = ast.parse((ROOT / "__init__.py").read_text())
LOADED = "names = [name for name in sys.modules if name.partition('.')[0] == 'kling_async']"

pytestmark = pytest.mark.real_clock


def fresh(script, *, code=0):
    """
    What a script prints in a process of its own, and what it complains of.
    """
    command = [sys.executable, "-c", f"import sys\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert code == done.returncode, done.stderr
    return done.stdout, done.stderr


def promised():
    """
    Names and their modules, as type checkers read them.
    """
    (block,) = (node for node in TREE.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {alias.asname: node.module for node in block.body for alias in node.names if alias.name == alias.asname}


def test_type_checkers_and_programs_find_the_same_names():
    """
    The imports that checkers read, the table that programs use, and what is exported agree.
    """
    assert promised() == kling_async._HOMES
    assert {*promised(), "__version__"} == set(kling_async.__all__)


def test_type_checkers_know_no_name_that_is_not_there():
    """
    What finds names at run time is hidden from them, so that a misspelt name is an error.
    """
    for tree in (TREE, ast.parse((ROOT / "stores.py").read_text())):
        seen = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        seen |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert "__getattr__" not in seen


def test_no_name_is_also_that_of_a_module():
    """
    Importing a module sets it as an attribute of the package, over what stood there.
    """
    modules = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set() == modules & set(kling_async._HOMES)
    assert kling_async._MODULES <= modules


def test_importing_the_package_loads_no_other_module():
    """
    Neither one of ours nor one of others.
    """
    out, _ = fresh("before = set(sys.modules)\nimport kling_async\nprint(*set(sys.modules) - before)")
    assert ["kling_async"] == out.split()


def test_an_error_or_a_value_is_there_without_the_client():
    """
    Only the modules that a name needs are loaded with it.
    """
    for name, others in (("KlingError", {"attr", "anyio", "orjson"}), ("Point", {"anyio", "orjson", "cattrs"})):
        out, _ = fresh(f"from kling_async import {name}\nprint(*sys.modules)")
        assert set() == {*others, "kling_async._codec", "kling_async.client"} & set(out.split())


def test_a_client_is_there_without_a_database():
    """
    SQLite is loaded with the store that needs it, psycopg when its store is opened.
    """
    out, _ = fresh(
        "from kling_async import KlingClient, MemoryStore\nprint('sqlite3' in sys.modules)\n"
        "from kling_async.stores import PostgresStore\nPostgresStore('postgresql://h')\n"
        "print('sqlite3' in sys.modules, 'psycopg' in sys.modules)\n"
        "from kling_async.stores import SqliteStore\nprint('sqlite3' in sys.modules)"
    )
    assert ["False", "False", "False", "True"] == out.split()


def test_all_names_together_load_nothing_heavy():
    """
    aiohttp, cattrs, trio and numpy wait until they are used, whatever is named before.
    """
    out, _ = fresh("from kling_async import *\nprint(*{name.partition('.')[0] for name in sys.modules})")
    assert set() == {"aiohttp", "asyncio", "cattrs", "numpy", "trio", "PIL", "cv2", "av", "jwt"} & set(out.split())


def test_each_module_can_be_the_first():
    """
    No name needs another to be imported before it.
    """
    fresh(f"""
from importlib import import_module
import kling_async
for name, home in kling_async._HOMES.items():
    {LOADED}
    for each in names:
        del sys.modules[each]
    found = getattr(import_module("kling_async"), name)
    assert found is getattr(sys.modules["kling_async." + home], name), name
""")


def test_a_star_imports_every_name():
    """
    As before they were found one by one.
    """
    names = {}
    exec("from kling_async import *", names)
    assert set(kling_async.__all__) == {*names} - {"__builtins__"}


def test_dir_tells_of_names_that_nobody_asked_for():
    """
    For completion at a prompt: all that is exported, and the modules.
    """
    out, _ = fresh("import kling_async\nprint(*dir(kling_async))")
    assert {*kling_async.__all__, *kling_async._MODULES, "__doc__"} <= set(out.split())
    assert "TYPE_CHECKING" not in out.split()


def test_modules_are_attributes():
    """
    `kling_async.errors` needs no import of its own, though nothing has loaded it yet.
    """
    fresh(f"""
import kling_async
for module in sorted(kling_async._MODULES):
    {LOADED}
    for each in names:
        del sys.modules[each]
    import kling_async
    assert module not in vars(kling_async)
    assert getattr(kling_async, module) is sys.modules["kling_async." + module]
""")


def test_a_name_is_looked_for_once(monkeypatch):
    """
    Then it is a global of the package, and what finds names has no part in it.
    """
    for name in ("Point", "points"):
        monkeypatch.delitem(vars(kling_async), name, raising=False)
        first = getattr(kling_async, name)
        assert first is vars(kling_async)[name]
    assert kling_async.points.Point is kling_async.Point


@pytest.mark.parametrize("name", ["KlingClinet", "_auth2", "__wrapped__"])
def test_an_unknown_name_is_refused_in_the_usual_words(name):
    """
    As any module does it, so that Python can suggest what was meant.
    """
    with pytest.raises(AttributeError) as caught:
        getattr(kling_async, name)
    assert f"module 'kling_async' has no attribute '{name}'" == str(caught.value)
    assert (name, kling_async) == (caught.value.name, caught.value.obj)
    with pytest.raises(ImportError, match=f"cannot import name '{name}' from 'kling_async'"):
        exec(f"from kling_async import {name}")


def test_python_suggests_a_name_that_nobody_asked_for():
    """
    A slip of the finger is answered with the name that was meant.
    """
    _, err = fresh("import kling_async\nkling_async.KlingClinet", code=1)
    assert "Did you mean: 'KlingClient'?" in err


def test_stores_refuse_an_unknown_name(monkeypatch):
    """
    The one other module that finds names late: stores in a database, and nothing else.
    """
    for name in ("SqliteStore", "PostgresStore"):
        monkeypatch.delitem(vars(stores), name, raising=False)
        assert getattr(stores, name) is getattr(kling_async, name)
        assert getattr(stores, name) is vars(stores)[name]
    with pytest.raises(AttributeError, match=r"^module 'kling_async.stores' has no attribute 'RedisStore'$"):
        _ = stores.RedisStore


def test_threads_that_ask_at_once_get_the_same():
    """
    However many ask first: the module is loaded once, and all have the one class of it.
    """
    out, _ = fresh("""
import threading
import kling_async
together, found, names = threading.Barrier(12), [], ("KlingClient", "SelectionSession", "edit_many", "errors")
def ask(turn):
    together.wait()
    order = names[turn % 4:] + names[:turn % 4]
    got = {name: getattr(kling_async, name) for name in order}
    found.append(tuple(got[name] for name in names))
threads = [threading.Thread(target=ask, args=(turn,)) for turn in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found), len(set(found)))
""")
    assert ["12", "1"] == out.split()


def test_an_interrupted_import_can_be_repeated():
    """
    What was cut short leaves no half of a module behind.
    """
    out, _ = fresh("""
import kling_async
class Interrupting:
    left = 3
    def find_spec(self, name, path=None, target=None):
        if name.startswith("kling_async._") and self.left:
            self.left -= 1
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
for _ in range(3):
    try:
        kling_async.KlingClient
    except KeyboardInterrupt:
        print("KlingClient" in vars(kling_async))
print(kling_async.KlingClient is kling_async.client.KlingClient)
""")
    assert ["False", "False", "False", "True"] == out.split()


def test_what_is_pickled_is_found_where_nothing_is_loaded():
    """
    Values, errors, classes and functions name their own modules.
    """
    point, error = kling_async.Point(0.25, 0.5), kling_async.InvalidInputError("field", "reason")
    data = pickle.dumps((point, error, kling_async.KlingClient, kling_async.edit, kling_async.SqliteStore))
    out, _ = fresh(f"""
import pickle
point, error, *rest = pickle.loads({data!r})
import kling_async as kling
assert rest == [kling.KlingClient, kling.edit, kling.SqliteStore]
assert type(error) is kling.InvalidInputError
print(point == kling.Point(0.25, 0.5), error)
""")
    assert f"True {error}\n" == out


# The command line


def test_the_command_line_loads_next_to_nothing_before_it_is_on_guard():
    """
    Ctrl-C is met from the first line of `main` on, and what comes before it is over at once.
    """
    out, _ = fresh(f"from kling_async.cli import main\n{LOADED}\nprint(*sorted(names))")
    assert ["kling_async", "kling_async.cli"] == out.split()


@pytest.mark.parametrize(
    "at", ["cyclopts", "rich", "attr", "anyio", "kling_async.errors", "kling_async.client", "orjson"]
)
def test_ctrl_c_while_the_command_line_loads_is_no_traceback(at):
    """
    A signal while any of its modules is being loaded ends the process with 130 and without a word.
    """
    pytest.importorskip("cyclopts")
    said = fresh(
        f"""
import os, signal
class Signalling:
    def find_spec(self, name, path=None, target=None):
        if name == {at!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Signalling())
from kling_async.cli import main
sys.exit(main(["tasks", "list", "--help"]))
""",
        code=130,
    )
    assert ("", "") == said


# Its benchmark


def test_the_benchmark_measures_each_script():
    """
    Time and memory of each in turns, and a table with the ratios; peers come in where they are installed.
    """
    peer = {"json": "import json\ndone()", "json's client": "import json\ndone()"}
    found = imports.alternating({**imports.SCRIPTS, **peer}, rounds=1)
    assert all(cost.cpu > 0 and cost.wall > 0 for costs in found.values() for cost in costs)
    rows = imports.compared(found, ["json"])
    assert [
        "import kling_async / import aiohttp",
        "import KlingClient from it / import aiohttp",
        "first client / the median peer's import",
        "aiohttp session / the median peer's import",
        "first client / the median peer's first client",
        "aiohttp session / the median peer's first client",
        "ms the loop stands still as a client opens",
        "MB of a first client over the bare interpreter",
    ] == [row.name for row in rows]
    assert all(row.value > 0 for row in rows[:-1])
    assert [*rows[:2], *rows[-2:]] == imports.compared(found, [])
