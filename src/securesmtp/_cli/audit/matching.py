"""The statement `match`: which cases are met, and what they bind."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from securesmtp._cli.audit.definitions import Definitions
from securesmtp._cli.audit.values import Object, Unknown

if TYPE_CHECKING:
    from securesmtp._cli.audit.paths import Path


class Matching(Definitions):
    """Runs `match`."""

    def _do_match(self, node: ast.Match, path: Path) -> list[Path]:
        ended: list[Path] = []
        going = [path]
        for case in node.cases:
            condition = self._case(node.subject, case)
            for before in going:
                self._capture(case.pattern, node.subject, before)
            tested = [result for before in going for result in self.test(condition, before)]
            ended += self.run_block(case.body, [after for after, met in tested if met])
            going = [after for after, met in tested if not met]
        return ended + going

    def _capture(self, pattern: ast.pattern, subject: ast.expr, path: Path) -> None:
        """Bind the names of a pattern; only `case name` and `case … as name` are the subject itself."""
        for each in ast.walk(pattern):
            name = getattr(each, "name" if isinstance(each, ast.MatchAs | ast.MatchStar) else "rest", None)
            if name is not None:
                self.store(name, Unknown(self.site(each)), path)
        if isinstance(pattern, ast.MatchAs) and pattern.name is not None:
            for after, value in self.evaluate(subject, path.copy())[:1]:
                self.store(pattern.name, value, path)
                if isinstance(value, Object):
                    path.store[value.key] = after.fields(value.key).copy()

    @staticmethod
    def _case(subject: ast.expr, case: ast.match_case) -> ast.expr:
        match case.pattern:
            case ast.MatchValue(value=value):
                condition: ast.expr = ast.Compare(subject, [ast.Eq()], [value])
            case ast.MatchAs(pattern=None):
                condition = case.guard or ast.Constant(value=True)
            case ast.MatchOr(patterns=patterns) if all(isinstance(each, ast.MatchValue) for each in patterns):
                values: list[ast.expr] = [each.value for each in patterns if isinstance(each, ast.MatchValue)]
                condition = ast.Compare(subject, [ast.In()], [ast.Tuple(values, ast.Load())])
            case _:
                condition = ast.Name("pattern", ast.Load())
        for each in ast.walk(condition):
            if not hasattr(each, "lineno"):
                ast.copy_location(each, case.pattern)
        return condition
