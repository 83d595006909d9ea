from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import lazymig


def test_every_public_name_is_there_and_listed_in_order() -> None:
    assert lazymig.__all__ == sorted(lazymig.__all__)
    for name in lazymig.__all__:
        assert getattr(lazymig, name) is not None
        assert name in dir(lazymig)


def test_names_come_from_where_type_checkers_are_told() -> None:
    tree = ast.parse(Path(lazymig.__file__).read_text())
    told = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lazymig")
        for alias in node.names
    }
    assert sorted(told) == lazymig.__all__
    for name, module in told.items():
        assert getattr(lazymig, name) is getattr(import_module(str(module)), name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nodes'"):
        lazymig.__getattr__("Nodes")


def test_importing_the_package_alone_imports_no_room() -> None:
    code = (
        "import sys, lazymig; print([m for m in sys.modules if m.startswith('lazymig.') or m in ('orjson', 'anyio')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
