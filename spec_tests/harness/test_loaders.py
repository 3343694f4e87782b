"""TARGET is found, and whatever goes wrong is said in a line that tells what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from detr_conformance import TargetError
from detr_conformance.running import loaders
from detr_conformance.running.loaders import load_targets, resolve_names

TARGET = """
from detr_conformance import Target
def kernel(*arguments): ...
target = Target(name="mine", provides={"ms_deform_attn": kernel})
other = Target(name="other", provides={"ms_deform_attn": kernel})
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a file into the current directory; imports of the test are forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(text: str, name: str = "my_kernel.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("reference", "reference-compiled", "transformers-d_fine", "transformers-rt_detr")
    entries = {name: EntryPoint(name, f"no_such_package:{name}", loaders.GROUP) for name in names}
    monkeypatch.setattr(loaders, "installed_targets", lambda: entries)


def error_of(spec: str) -> str:
    with pytest.raises(TargetError) as caught:
        load_targets(spec)
    return str(caught.value)


@pytest.mark.usefixtures("installed")
def test_a_name_is_itself_and_a_beginning_is_all() -> None:
    assert resolve_names("reference") == ["reference"]
    assert resolve_names("transformers") == ["transformers-d_fine", "transformers-rt_detr"]
    assert resolve_names("package.module:target") == ["package.module:target"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("refrence", "did you mean reference"),
        ("zzz", "`detr-spec targets` lists the installed ones"),
        ("", "no target ''"),
        ("my_kernel.py", "write my_kernel.py:target"),
        ("my_kernel.py:", "write my_kernel.py:target"),
        ("no/such/file.py:target", "there is no file 'no/such/file.py'"),
    ],
)
def test_an_unknown_target_says_what_to_write(spec: str, said: str) -> None:
    with pytest.raises(TargetError, match=said) as caught:
        resolve_names(spec)
    assert "\n" not in str(caught.value)


def test_a_file_is_loaded_with_its_siblings(write: Write) -> None:
    write("from detr_conformance import Target\ndef kernel(): ...", "folder/sibling_of_mine.py")
    write(
        "from sibling_of_mine import *\ntarget = Target(name='mine', provides={'ms_deform_attn': kernel})",
        "folder/my_kernel.py",
    )
    (target,) = load_targets("folder/my_kernel.py:target")
    assert target.name == "mine"
    assert "my_kernel" not in sys.modules


def test_a_module_of_the_current_directory_is_loaded(write: Write) -> None:
    write(TARGET, "my_package/kernels.py")
    (target,) = load_targets("my_package.kernels:target")
    assert target.name == "mine"


def test_two_files_of_one_name_do_not_meet(write: Write) -> None:
    write(TARGET, "a/kernel.py")
    write(TARGET.replace("mine", "yours"), "b/kernel.py")
    mine, yours = (load_targets(f"{folder}/kernel.py:target")[0] for folder in "ab")
    assert (mine.name, yours.name) == ("mine", "yours")
    modules = [target.provides["ms_deform_attn"].__module__ for target in (mine, yours)]
    assert len({sys.modules[module].__file__ for module in modules}) == 2


def test_a_relative_deviation_file_lies_beside_the_target(write: Write, tmp_path: Path) -> None:
    write(TARGET.replace("kernel})", "kernel}, deviations='known.toml')"), "folder/my_kernel.py")
    (target,) = load_targets("folder/my_kernel.py:target")
    assert target.deviations == tmp_path.resolve() / "folder" / "known.toml"


def test_a_file_that_raises_is_quoted_with_its_line(write: Write) -> None:
    write("import json\n\n1 / 0\n")
    assert error_of("my_kernel.py:target") == (
        "my_kernel.py (my_kernel.py, line 3) raises ZeroDivisionError when imported: division by zero"
    )


def test_the_line_is_the_users_and_not_the_librarys(write: Write) -> None:
    write("import json\n\njson.loads('{')\n")
    assert "(my_kernel.py, line 3) raises JSONDecodeError" in error_of("my_kernel.py:target")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:", r"\(my_kernel.py, line 1\) raises SyntaxError"),
        ("import sys\nsys.exit(3)", r"line 2\) raises SystemExit"),
        (
            "import no_such_package.part",
            r"line 1\) needs the package 'no_such_package', which is not installed",
        ),
        ("import json.no_such_part", r"imports 'json.no_such_part', which does not exist"),
        (TARGET.replace("ms_deform_attn", "ms_deform_atn"), r"line 4\): .*did you mean 'ms_deform_attn'"),
    ],
)
def test_whatever_a_file_raises_is_one_line(write: Write, text: str, said: str) -> None:
    write(text)
    with pytest.raises(TargetError, match=said) as caught:
        load_targets("my_kernel.py:target")
    assert "\n" not in str(caught.value)


def test_a_missing_module_is_told_from_a_missing_dependency(write: Write) -> None:
    write("import no_such_package", "needy.py")
    assert "no module 'no_such_module'" in error_of("no_such_module.part:target")
    assert "needy (needy.py, line 1) needs the package 'no_such_package'" in error_of("needy:target")


def test_a_missing_attribute_lists_the_targets_there(write: Write) -> None:
    write(TARGET)
    said = error_of("my_kernel.py:targt")
    assert "its targets are: my_kernel.py:target, my_kernel.py:other" in said


@pytest.mark.parametrize(("attribute", "kind"), [("kernel", "a function"), ("NUMBER", "a int"), ("Kernel", "a class")])
def test_what_is_not_a_target_is_told_how_to_become_one(write: Write, attribute: str, kind: str) -> None:
    write("def kernel(): ...\nclass Kernel: ...\nNUMBER = 3\n")
    said = error_of(f"my_kernel.py:{attribute}")
    assert said.startswith(f"my_kernel.py:{attribute} is {kind}, not a Target; write\n")
    assert "    from detr_conformance import Target\n" in said
    assert said.endswith("detr-spec check my_kernel.py:target")


def test_a_missing_optional_package_of_ours_names_the_extra(write: Write) -> None:
    write("raise ModuleNotFoundError(name='transformers')", "adapter_of_transformers.py")
    ours = next(iter(loaders.entry_points(group=loaders.GROUP, name="reference")))
    assert ours.dist is not None
    sys.path.insert(0, str(Path.cwd()))
    with pytest.raises(TargetError) as caught:
        loaders._import_module("adapter_of_transformers", "transformers-rt_detr", ours.dist)
    assert 'pip install "detr-spec[transformers]"' in str(caught.value)
