"""The gates that keep clauses, tests and mutants together; each returns what is wrong, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from detr_conformance.evidence.clauses import Clause
from detr_conformance.evidence.registry import Mutant
from detr_conformance.harness.suite_test import SuiteTest
from detr_conformance.running.trial import Judge, suite_test_of


def untested_clauses(clauses: Mapping[str, Clause], tests: Iterable[Judge]) -> list[str]:
    """Clauses that no test names."""
    named = {clause for test in tests for clause in suite_test_of(test).clauses}
    return [clause for clause in clauses if clause not in named]


def stray_tests(clauses: Mapping[str, Clause], tests: Iterable[Judge]) -> list[str]:
    """Tests that name no clause, or one that no chapter has."""
    every = [suite_test_of(test) for test in tests]
    return [test.name for test in every if not test.clauses or not set(test.clauses) <= set(clauses)]


def unguarded_clauses(clauses: Mapping[str, Clause], mutants: Iterable[Mutant]) -> list[str]:
    """Clauses that no mutant declares."""
    declared = {mutant.rejects for mutant in mutants}
    return [clause for clause in clauses if clause not in declared]


def stray_mutants(clauses: Mapping[str, Clause], mutants: Iterable[Mutant]) -> list[str]:
    """Mutants that declare a clause no chapter has."""
    return [mutant.name for mutant in mutants if mutant.rejects not in clauses]


def unexercised_clauses(clauses: Mapping[str, Clause], ran: Iterable[SuiteTest]) -> list[str]:
    """Clauses of which no test ran."""
    exercised = {clause for test in ran for clause in test.clauses}
    return [clause for clause in clauses if clause not in exercised]
