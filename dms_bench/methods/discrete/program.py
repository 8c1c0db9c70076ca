"""Levels of all widths and a choice of blocks with the least loss at a budget, by integer programs.

A choice has a binary variable for every level, of which each unit takes one, and one for every removable block. Its
loss is a sum over variables. Its costs are products of sizes, so they are linearised around a choice, with the exact
difference that every single level and block makes while all others are as they are, and the program is solved exactly;
then again around its solution. A solution that is far from where its costs were linearised may miss the budget: every
round lets levels move half as far as the one before, and the best choice that meets the budget by its true cost stays.
On small networks whose every choice can be tried that is the best choice of all in most cases, not in all (a test).

Sources: Shen et al. 2022 (HALP, a knapsack of latencies), Sun et al. 2025 (MDP, blocks and widths in one program),
Bercovich et al. 2025 (Puzzle, additive scores of measured replacements). The rounds are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp

from dms_bench.methods.discrete.choices import Choices, Variables
from dms_bench.scaling import Budget, Constraint

#: Programs that are solved, each around the last one's solution.
ROUNDS = 10
#: For one program; the best choice found by then is taken.
SECONDS = 60
#: The largest loss of a variable in a program: the solver's tolerances are absolute, and scores may be tiny.
_SCALE = 1e3


@dataclass(frozen=True)
class Program:
    """What is chosen from, what it loses and what it may cost.

    Attributes:
        choices: the variables.
        lost: by each level that is taken and by each block that is not, [V].
        budget: what is to be met.
    """

    choices: Choices
    lost: Variables
    budget: Budget

    def solve(self, *starts: Variables) -> Variables:
        """Return the choice of least loss among those found that meet the budget; among all, where none does.

        Args:
            *starts: choices that costs are linearised around at first, of which each has its own rounds.
        """
        found = [*starts]
        for start in starts:
            choice, reach = start, max((len(unit.counts) for unit in self.choices.units), default=1)
            for _ in range(ROUNDS):
                solution = self._around(choice, reach)
                if solution is None:
                    break
                found.append(solution)
                choice, reach = solution, max(1, reach // 2)
        return min(found, key=lambda choice: (self.usage(choice) > 1, self.loss(choice)))

    def loss(self, choice: Variables) -> float:
        """Return what a choice loses."""
        levels = self.choices.levels
        return float(self.lost[:levels] @ choice[:levels] + self.lost[levels:] @ (1 - choice[levels:]))

    def usage(self, choice: Variables) -> float:
        """Return the largest share that any cost has of its target."""
        return float(self.budget.usage(*self.choices.size(choice)))

    def _around(self, choice: Variables, reach: int) -> Variables | None:
        """Solve the program whose costs are linearised around a choice; None where it has no solution."""
        objective = np.concatenate([self.lost[: self.choices.levels], -self.lost[self.choices.levels :]])
        result = milp(
            objective * (_SCALE / max(abs(objective).max(), 1e-300)),
            integrality=np.ones(len(choice)),
            bounds=Bounds(0, self.choices.near(choice, reach)),
            constraints=[*self._sizes(), *(self._linear(bound, choice) for bound in self.budget.constraints)],
            options={"mip_rel_gap": 0, "time_limit": SECONDS},
        )
        return None if result.x is None else result.x.round()

    def _sizes(self) -> list[LinearConstraint]:
        """One level of every unit, and as many blocks of every stage as may stay."""
        rows = np.zeros((len(self.choices.runs), len(self.lost)))
        for row, (run, _, _) in zip(rows, self.choices.runs, strict=True):
            row[run] = 1
        return [LinearConstraint(row, low, high) for row, (_, low, high) in zip(rows, self.choices.runs, strict=True)]

    def _linear(self, bound: Constraint, choice: Variables) -> LinearConstraint:
        """Return the constraint in which each variable costs what it alone changes of a choice's cost."""
        levels = self.choices.levels
        kept, blocks = self.choices.size(choice)
        base = bound.cost(kept, blocks)
        singly = torch.where(self.choices.counts > 0, self.choices.counts, kept)  # [L, G]
        changes = (bound.cost(singly, blocks) - base).tolist()
        for block in range(len(blocks)):
            present, absent = blocks.clone(), blocks.clone()
            present[block], absent[block] = 1, 0
            changes.append(float(bound.cost(kept, present) - bound.cost(kept, absent)))
        shares = np.array(changes) / bound.target
        # A choice's own levels change nothing; its own blocks are in its cost already.
        room = 1 - float(base) / bound.target + shares[levels:] @ choice[levels:]
        return LinearConstraint(shares, -np.inf, room)
