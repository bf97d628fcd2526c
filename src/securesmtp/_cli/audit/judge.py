"""From what happens on each path to findings: always insecure, by default, by option, or as the server pleases."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from securesmtp._cli.audit.findings import Finding, Level, Rule
from securesmtp._cli.audit.values import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securesmtp._cli.audit.paths import Fact, Key, Path


# Paths through one call that are compared.
_MOST_OBSERVATIONS = 24
# Other calls of one function that a call is compared with.
_MOST_ALIKE = 256


@dataclass(frozen=True, slots=True)
class Alternatives:
    """
    The rules for code that is secure on some paths only.

    Attributes:
        opportunistic: The server decides.
        ignored: It goes on after TLS failed.
        optional: An option decides.
    """

    opportunistic: Rule
    ignored: Rule
    optional: Rule


@dataclass(frozen=True, slots=True)
class Observation:
    """
    What a call does on one path.

    Attributes:
        topic: What is observed, such as ``context``.
        sink: The call. What it does on other paths is compared.
        rule: The rule that it breaks if it is bad.
        is_bad: Whether it breaks the rule on this path.
        where: The expression to fix.
        message: What the code does.
        facts: The conditions that were met on this path.
        fault: What is wrong, such as a client: of its findings for `rule` and `optional`, one is kept.
        failed: The call that failed before, and was ignored.
        most: The highest level.
        alternatives: The rules for code that is secure on other paths; None to lower the level of `rule`.
    """

    topic: str
    sink: ast.AST
    rule: Rule
    is_bad: bool
    where: ast.AST
    message: str = ""
    facts: dict[Key, Fact] = field(default_factory=dict)
    fault: object = None
    failed: ast.AST | None = None
    most: Level = Level.ERROR
    alternatives: Alternatives | None = None


class Notes:
    """The findings of one file, and what was observed in the function that is being run."""

    def __init__(self, path: str, *, is_discarded: bool = False) -> None:
        self.path = path
        self._found: dict[tuple[str, int, int], Finding] = {}
        # Findings of which one for each fault is kept: the most certain, then the first.
        self._faults: dict[object, Finding] = {}
        self._observations: dict[tuple[str, ast.AST, bool], list[Observation]] = {}
        self._withdrawn: set[tuple[str, int, int]] = set()
        self._is_discarded = is_discarded
        # Calls that send, for the rules on retries; clients without a time limit.
        self.sends: set[ast.AST] = set()
        self.limitless: list[ast.AST] = []

    def report(self, rule: Rule, node: ast.AST, message: str, level: Level | None = None) -> None:
        """Report an expression that breaks a rule."""
        finding = self._finding(rule, node, message, rule.level if level is None else level)
        place = (finding.rule, finding.line, finding.column)
        known = self._found.get(place)
        if known is None or known.level < finding.level:
            self._found[place] = finding

    def _finding(self, rule: Rule, node: ast.AST, message: str, level: Level) -> Finding:
        line = getattr(node, "lineno", 1)
        end = getattr(node, "end_lineno", None) or line
        if isinstance(node, ast.ExceptHandler | ast.With | ast.If | ast.FunctionDef | ast.ClassDef):
            # A statement with a body is reported by its first line.
            end = line
        return Finding(self.path, line, getattr(node, "col_offset", 0) + 1, end, rule.id, level, message)

    def observe(self, path: Path, observation: Observation) -> None:
        """Note what a call does on one path."""
        if self._is_discarded:
            return
        kept = self._observations.setdefault((observation.topic, observation.sink, observation.is_bad), [])
        for each in path.histories():
            seen = replace(observation, facts=each)
            if len(kept) < _MOST_OBSERVATIONS and seen not in kept:
                kept.append(seen)

    def withdraw(self, rule: Rule, node: ast.AST) -> None:
        """Do not report an expression: what is done later decides."""
        finding = self._finding(rule, node, "", rule.level)
        self._withdrawn.add((finding.rule, finding.line, finding.column))

    def close(self) -> None:
        """Judge what was observed in one function, with what it calls."""
        observations, self._observations = self._observations, {}
        # What other calls do right, once for each set of conditions.
        alike: dict[str, dict[frozenset[tuple[Key, Fact]], Observation]] = {}
        for (topic, _, is_bad), seen in observations.items():
            if not is_bad:
                kept = alike.setdefault(topic, {})
                for each in seen[: _MOST_ALIKE - len(kept)]:
                    kept.setdefault(frozenset(each.facts.items()), each)
        for (topic, sink, is_bad), seen in observations.items():
            if not is_bad:
                continue
            same = observations.get((topic, sink, False), [])
            others = list(alike.get(topic, {}).values())
            for each in seen:
                self._judge(each, same, others if each.alternatives is not None else [])

    def _judge(self, bad: Observation, same: list[Observation], family: list[Observation]) -> None:
        deciding = _deciding(bad, same or family)
        alternatives = bad.alternatives
        if alternatives is not None and bad.failed is not None:
            message = "the failure of this call is ignored, and the dialogue goes on in plaintext"
            self.report(alternatives.ignored, bad.failed, message)
            return
        by_server = [fact for fact in deciding if fact.kind is Kind.SERVER]
        if alternatives is not None and by_server:
            node = by_server[0].node or bad.where
            self.report(
                alternatives.opportunistic,
                node if hasattr(node, "lineno") else bad.where,
                "whether TLS is used is decided by the server's plaintext reply, which an attacker can change",
            )
            return
        by_option = [fact for fact in deciding if fact.kind is not Kind.SERVER]
        if not by_option:
            level = Level.WARNING if same else bad.rule.level
            self._keep(bad, bad.rule, min(level, bad.most))
            return
        is_default = any(fact.default is fact.holds for fact in by_option)
        level = Level.WARNING if is_default or any(fact.kind is Kind.OTHER for fact in by_option) else Level.NOTE
        self._keep(bad, alternatives.optional if alternatives is not None else bad.rule, min(level, bad.most))

    def _keep(self, bad: Observation, rule: Rule, level: Level) -> None:
        if bad.fault is None:
            self.report(rule, bad.where, bad.message, level)
            return
        finding = self._finding(rule, bad.where, bad.message, level)
        known = self._faults.get(bad.fault)
        if known is None or _rank(finding) < _rank(known):
            self._faults[bad.fault] = finding

    def findings(self) -> list[Finding]:
        """Return all findings, in the order of the file."""
        found = {(each.rule, each.line, each.column): each for each in self._faults.values()}
        kept = [each for place, each in {**found, **self._found}.items() if place not in self._withdrawn]
        return sorted(kept, key=lambda each: (each.line, each.column, each.rule))


def _rank(finding: Finding) -> tuple[int, str, int, int]:
    return (-finding.level, finding.rule, finding.line, finding.column)


def _distance(facts: list[Fact]) -> tuple[int, bool]:
    # Of two good paths that are as near, the one that the server decides is the greater danger.
    return len(facts), all(fact.kind is not Kind.SERVER for fact in facts)


def _deciding(bad: Observation, good: Iterable[Observation]) -> list[Fact]:
    """Return the conditions that tell a bad path from the good path that is most like it."""
    nearest: list[Fact] = []
    for other in good:
        different = [
            fact for key, fact in bad.facts.items() if key in other.facts and other.facts[key].holds is not fact.holds
        ]
        if different and (not nearest or _distance(different) < _distance(nearest)):
            nearest = different
    return nearest
