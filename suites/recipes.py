"""Recipes: how fields are added, deleted and changed while releases that don't know of it are still running.

============================================= ========================== ===========================================
Change                                        In                         Releases
============================================= ========================== ===========================================
Add a field                                   ``_recipes_add.py``        it is added, the migration goes
Delete a field (or rename it)                 ``_recipes_delete.py``     it is put aside, dropped, the migrations go
Change a field's type, and its name           ``_recipes_retype.py``     it is changed, the migration goes
============================================= ========================== ===========================================

Each has its releases as suites of their own, says what each of them does and which command is run before it is
deployed. What holds from the first step to the last, and on the way back:

1. Every release reads what was last stored, whichever of them stored it.
2. What a release stores and another one can't, is kept, as the actor's base, and is there again.
3. A step that is not safe yet is refused by its gate; a release that lacks what something stored needs, or that can't
   store what is pinned, doesn't start.

A release is deployed node by node, and the command of the next one waits until all nodes run it. In one's own software
the suites of a recipe are the same file, at another commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from suites._recipes_add import ADD_A_FIELD
from suites._recipes_delete import DELETE_A_FIELD
from suites._recipes_retype import CHANGE_A_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from suites._recipes_releases import Recipe

RECIPES: Mapping[str, Recipe] = {"add": ADD_A_FIELD, "delete": DELETE_A_FIELD, "retype": CHANGE_A_TYPE}
"""The recipes by a short name."""
