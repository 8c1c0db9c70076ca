"""What every search method's specification has."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from dms_bench.config.plugins import PluginSpec
from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dms_bench.config.budget import BudgetSpec
    from dms_bench.scaling import SearchSpace
    from dms_bench.tasks import Task


#: What a search may use. weights: the supernet's own; data: what the network does with training data; gradients: of a
#: loss on them; training: it trains weights; validation: it measures on the validation split.
Use = Literal["weights", "data", "gradients", "training", "validation"]
USES: tuple[Use, ...] = ("weights", "data", "gradients", "training", "validation")


class MethodSpec(PluginSpec):
    """Options of a search method; the work is done by the class that `implementation` names."""

    trains_in_search: ClassVar[bool] = False
    """Whether the method trains during the search, and so needs the search recipe."""
    uses_budget: ClassVar[bool] = True
    """Whether the method cuts to the budget; if not, a sweep over budgets runs it once."""

    shrinks_pictures: ClassVar[bool] = False
    """Whether the method meets the budget with smaller pictures, and leaves the network as it is."""
    adds_search_epochs: ClassVar[bool] = False
    """Whether the retraining goes on for the epochs of the search recipe as well, which the method then needs."""

    draws_on: ClassVar[tuple[Use, ...] | None] = None
    """What its search uses, in the order of `USES`; None where a method does not say."""

    needs_widths: ClassVar[bool] = False
    """Whether the method is about widths alone, and has nothing to do where none is searched."""

    def label(self) -> str:
        """Return the method as the leaderboard prints it."""
        return self.kind

    def network(self, supernet: SupernetSpec) -> SupernetSpec:
        """Return the network that the method starts from: the supernet, unless it brings one of its own."""
        return supernet

    @property
    def uses(self) -> tuple[Use, ...] | None:
        """What the search uses with these options, in the order of `USES`; None where the method does not say."""
        return self.draws_on

    @property
    def searched_budgets(self) -> tuple[BudgetSpec, ...]:
        """The budgets that one search is for; none where every budget has a search of its own."""
        return ()

    def for_budgets(self, budgets: Sequence[BudgetSpec]) -> Self:
        """Return the method with the budgets of its sweep, where its options ask for one search for all of them."""
        return self

    @property
    def judges_weights(self) -> bool:
        """Whether the search measures the supernet's own weights, which must then be trained."""
        return False

    def trained_epochs(self, epochs: int) -> tuple[int, int]:
        """Return for how many epochs the search trains the supernet, and networks at the budget, all of them together.

        Args:
            epochs: of the search recipe.
        """
        return (epochs if self.trains_in_search else 0, 0)

    def rehearsed(self) -> tuple[Self, dict[str, float]]:
        """Return the method with fewer candidates, for a rehearsal, and how many times as much each stage really does.

        Stages that are not named do what they always do.
        """
        return self, {}

    def check(self, space: SearchSpace, task: Task) -> None:
        """Refuse, before anything is trained, a space or a task that the method cannot search.

        Raises:
            UserError: there is nothing in it that the method searches, or the task lacks what it needs.
        """
        if self.needs_widths and not space.groups:
            raise UserError(f"method {self.kind!r} cuts widths, and this space has none: search the supernet's widths")

    def canonical(self) -> Self:
        """Return the method without the options that its other options make useless."""
        return self
