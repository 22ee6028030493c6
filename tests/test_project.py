"""Rules of the project as a whole: the direction of imports, what is never used, the README and the help."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

ROOT = Path(__file__).parent.parent
PACKAGES = ("curate", "rm_ensemble", "reports")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
IDS = [path.relative_to(ROOT).as_posix() for path in SOURCES]


def imports(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def top_level(tree: ast.Module) -> ast.Module:
    body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return ast.Module(body=body, type_ignores=[])


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_imports_point_one_way(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    packages = {name.split(".")[0] for name in imports(tree)}
    at_top = {name.split(".")[0] for name in imports(top_level(tree))}
    match path.relative_to(ROOT).parts[0]:
        case "curate":
            assert not packages & {"torch", "transformers", "accelerate", "peft"}
            assert not at_top & {"rm_ensemble", "reports"}
            if path.parent.name != "pipeline" and path.name != "terminal.py":  # terminal shows the report's summary
                assert not packages & {"rm_ensemble", "reports"}
        case "reports":
            assert not packages & {"torch", "transformers", "rm_ensemble"}
        case "rm_ensemble":
            assert "reports" not in packages
            assert not {name for name in imports(tree) if re.match(r"curate\.(pipeline|cli|policy|export)", name)}


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_no_pickle_and_no_remote_code(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not {name.split(".")[0] for name in imports(tree)} & {"pickle", "dill", "joblib", "shelve", "marshal"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("torch.load", "torch.save", "np.load", "eval", "exec"), called
            for keyword in node.keywords:
                if keyword.arg in ("trust_remote_code", "allow_pickle"):
                    assert ast.unparse(keyword.value) == "False"


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_every_module_imports_and_says_what_it_is(path):
    if path.name == "__main__.py" or (path.name == "__init__.py" and path.parent.name in ("rm_ensemble", "reports")):
        return
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    module = importlib.import_module(name.removesuffix(".__init__"))
    assert module.__doc__


def commands() -> dict[str, object]:
    from curate.cli import app

    return get_command(app).commands


def test_every_command_and_option_has_a_help():
    for name, command in commands().items():
        assert command.help, name
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{name} {parameter.name}"


def test_help_loads_no_torch():
    code = (
        "import sys\nfrom curate.cli import app\n"
        "heavy = {'torch', 'transformers', 'datasets', 'sklearn', 'plotly'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_path_of_a_machine_in_the_project():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        if Path(name).suffix in (".py", ".md", ".toml", ".txt", ".yaml", ".html") or name in ("Makefile", ".ci/run"):
            text = (ROOT / name).read_text(encoding="utf-8")
            assert not re.search(r"/(work|root|home)/\w", text), name


def test_every_file_that_a_document_links_to_exists():
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/results/*.md")]:
        text = document.read_text(encoding="utf-8")
        links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", text)
        missing = [link for link in links if not (document.parent / link).exists()]
        assert not missing, f"{document.name}: {missing}"
        placeholders = re.findall(r"\b[A-Z]{4,}_[A-Z_]{3,}\b", text)
        assert set(placeholders) <= {"CURATE_TEST_DATA", "SEQ_CLS"}, f"{document.name}: {placeholders}"
