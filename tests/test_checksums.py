from __future__ import annotations

import runpy
from functools import partial, wraps
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from semver import Version

from lazymig import Suite, _version
from lazymig._checksums import checksum

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lazymig import ActorType

PLAIN = """
def f(state, context):
    if state["n"] > 1:
        state["n"] += 1
    return state
"""

SAME = {
    "a docstring": '''
def f(state, context):
    """What it does.

    More.
    """
    if state["n"] > 1:
        state["n"] += 1
    return state
''',
    "a docstring of two parts": """
def f(state, context):
    "What it " "does"
    if state["n"] > 1:
        state["n"] += 1
    return state
""",
    "a docstring after others' letters": """
def f(state, context):
    "Größe"; "ö"
    if state["n"] > 1:
        state["n"] += 1
    return state
""".replace('; "ö"', ""),
    "comments": """
# above
def f(state, context):  # beside
  # further out
    if state["n"] > 1:
            # further in
        state["n"] += 1
    return state
    # below
# after it
""",
    "blank lines": """
def f(state, context):

    if state["n"] > 1:

        state["n"] += 1


    return state

""",
    "layout": """
def f(  state,
        context):
  if state[ "n" ]>1 :
     state["n"] \\
        += 1
  return state
""",
    "decorators": '''
def decorate(*args):
    return lambda function: function
@decorate
@decorate(lambda: """
def f(): pass""",
   # and
   2)
def f(state, context):
    if state["n"] > 1:
        state["n"] += 1
    return state
f = f(lambda state, context: None) if f.__name__ != "f" else f
'''.replace("@decorate\n", "@decorate()\n"),
    "its place": '''
if True:
    class Place:
        def f(state, context):
            """In a class."""
            if state["n"] > 1:
                state["n"] += 1
            return state
f = Place.f
''',
    "the end of the file": """
def f(state, context):
    if state["n"] > 1:
        state["n"] += 1
    return state""".lstrip(),
    "tabs": """
def f(state, context):
\tif state["n"] > 1:
\t\tstate["n"] += 1
\treturn state
""",
}  # fmt: skip

OTHER = {
    "a number": PLAIN.replace("+= 1", "+= 2"),
    "a text": PLAIN.replace('"n"', '"m"'),
    "how a text is written": PLAIN.replace('"n"', "'n'"),
    "the name": PLAIN.replace("def f", "def g") + "\nf = g\n",
    "a parameter": PLAIN.replace("context", "unused"),
    "a default": PLAIN.replace("context", "context=None"),
    "an annotation": PLAIN.replace("context", "context: object"),
    "a line less": PLAIN.replace("    return state\n", ""),
    "another block": PLAIN.replace("    return", "        return"),
    "async": PLAIN.replace("def", "async def"),
    "a text that is no docstring": PLAIN.replace("    return", '    "no docstring"\n    return'),
    "a comment that is text": PLAIN.replace('"n"', '"n # m"'),
}


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Any]:
    """Make the function f of a file with this text."""
    numbers = count()

    def make(text: str) -> Any:
        path = tmp_path / f"suite_{next(numbers)}.py"
        path.write_text(text, encoding="utf-8")
        return runpy.run_path(str(path))["f"]

    return make


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_what_is_no_code_changes_nothing(text: str, make: Callable[[str], Any]) -> None:
    assert checksum(make(text)) == checksum(make(PLAIN))


@pytest.mark.parametrize("text", OTHER.values(), ids=OTHER)
def test_any_change_of_code_changes_it(text: str, make: Callable[[str], Any]) -> None:
    assert checksum(make(text)) not in {None, checksum(make(PLAIN))}


def test_the_docstring_of_a_function_on_one_line_counts_no_more_than_any(make: Callable[[str], Any]) -> None:
    plain = checksum(make("def f(ä, c): return ä"))

    assert checksum(make('def f(ä, c): "döc"; return ä')) == plain
    assert checksum(make('def f(ä, c): "döc"; "text"; return ä')) != plain
    assert checksum(make('def f(ä, c):\n    "döc"\n    return ä')) == checksum(make("def f(ä, c):\n    return ä"))


def test_an_f_string_counts_as_it_is_written(make: Callable[[str], Any]) -> None:
    texts = [
        "f'{a}'",
        "f'{ a}'",
        "f'{a!r}'",
        "f'{a:>{b}}'",
        "f'{a:>{ b}}'",
        "rf'{a}'",
        "f'{{a}}'",
        "'{a}'",
        "f'''{a}'''",
    ]
    found = {checksum(make(f"def f(a, b):\n    return {text}")) for text in texts}

    assert len(found) == len(texts)


GOLDEN = r'''
async def everything(state, context, /, *, ä: "é" = 1) -> None:
    """Do a little of everything."""
    async with context as inner:
        state["n"] = [number async for number in inner if number < 0x1F]  # in hex
    if (found := state.get("ä")) is not None and found != 1_0.5e-3:
        return lambda x, /, *, y=b"\x00": (x @ y, ...)
    return f"{found!r:>{state['width']}} {{no}} {'nested ' + f'{found=:.{3}f}'}" rf"""
      {state
        ["b"]} é\d""" "\N{BULLET}"
def short(state, context): ...
class Step:
    def __call__(self, state, context):
        """Do the step."""
        state["step"] = True
f = everything, short, Step(), lambda state, context: state | {
    "n": context}
'''


def test_it_is_the_same_on_every_python(make: Callable[[str], Any]) -> None:
    assert [checksum(function) for function in make(GOLDEN)] == [
        2938269113020651976,
        5492037555427775853,
        908842429399570790,
        8548382312186164347,
    ]  # as Python 3.11, 3.12 and 3.13 have it: one that had something else would take every migration for changed


async def forward(state: Any, context: Any) -> Any:
    """Go on."""
    return await context.rates(state)


def short(state: Any, context: Any) -> None: ...


def test_a_lambda_counts_alone_wherever_it_is_written(make: Callable[[str], Any]) -> None:
    plain = checksum(make("f = lambda s, c: (s, c)"))

    assert plain is not None
    assert checksum(make("f, rest = (  # some\n   lambda s,\n   c: (s, # more\n c)\n), 7")) == plain
    assert checksum(make("ö = 'ö'; f = lambda s, c: (s, c); rest = 1")) == plain
    assert checksum(make("f = lambda s, c: (s, s)")) != plain


def test_lambdas_of_one_line_share_a_checksum(make: Callable[[str], Any]) -> None:
    first, second = make("f = lambda s: 1, lambda s: 2")

    assert checksum(first) == checksum(second) is not None
    assert checksum(first) != checksum(make("f = lambda s: 1, lambda s: 3")[0])


@pytest.mark.parametrize("function", [len, int, dict.get, Suite, "text", None, eval("lambda s, c: s")])
def test_what_has_no_source_has_none(function: Any) -> None:
    assert checksum(function) is None


def test_what_is_not_where_it_was_has_none(make: Callable[[str], Any], tmp_path: Path) -> None:
    function = make(PLAIN)
    gone, broken = make(PLAIN), make(PLAIN)
    (tmp_path / "suite_0.py").write_text("\n\n" + PLAIN)
    (tmp_path / "suite_1.py").unlink()
    (tmp_path / "suite_2.py").write_text("def f(:")

    assert [checksum(one) for one in (function, gone, broken)] == [None, None, None]


def test_a_text_that_python_warns_of_is_read_without_a_word(make: Callable[[str], Any]) -> None:
    with pytest.warns((DeprecationWarning, SyntaxWarning), match="invalid escape"):
        function = make("def f(s, c):\n    return '\\d'")
    assert checksum(function) is not None


# --- of migrations -----------------------------------------------------------------------------------------------


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@pytest.fixture
def car() -> ActorType[Any]:
    return Suite("fleet").actor_type("Car")


@pytest.mark.parametrize("wrap", [decorated, partial, lambda function: partial(decorated(partial(function)))])
def test_a_migrations_checksum_is_that_of_the_function_it_decorates(
    car: ActorType[Any], wrap: Callable[[Any], Any]
) -> None:
    first = car.migration("1.0.0")(wrap(short))

    assert first.checksum == checksum(short) is not None
    assert car.migration("2.0.0")(wrap(first)).checksum == checksum(short)


def test_a_chain_has_the_checksums_of_those_with_source(car: ActorType[Any]) -> None:
    car.migration("1.0.0")(short)
    car.migration("1.1.0")(eval("lambda s, c: s"))
    car.migration("2.0.0")(forward)
    one, two = (_version.pack(Version.parse(text)) for text in ("1.0.0", "2.0.0"))

    assert car.chain.checksums == {one: checksum(short), two: checksum(forward)}


def test_a_digest_is_of_versions_with_checksums_in_any_order(car: ActorType[Any]) -> None:
    car.migration("1.0.0")(short)
    car.migration("1.1.0")(eval("lambda s, c: s"))
    car.migration("2.0.0")(forward)
    one, between, two = (_version.pack(Version.parse(text)) for text in ("1.0.0", "1.1.0", "2.0.0"))
    digest = car.chain.digest

    assert digest([]) == digest([between]) == digest([7]) == 0
    assert digest([one, two]) == digest(iter((two, one, one, between, 7)))
    assert len({0, digest([one]), digest([two]), digest([one, two])}) == 4
    assert 0 < digest([one, two]) < 1 << 63

    other = Suite("other").actor_type("Car").migration("1.0.0")(forward)
    assert other._chain.digest([one]) != digest([one])
