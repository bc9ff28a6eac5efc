"""What was tried and how good it was in; what to try next out, as samplers of Optuna.

All draws of a trial follow from the seed and the trial's number, and a policy's state from the
finished trials, by number: so a search that goes on, in one process or several, needs no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from efficientnetv2.search.attributes import REWARD

Choices = Mapping[str, Sequence[Any]]


def distributions(choices: Choices) -> dict[str, BaseDistribution]:
    """Returns choices in Optuna's terms."""
    return {name: CategoricalDistribution(tuple(values)) for name, values in choices.items()}


def build_sampler(name: str, choices: Choices, *, seed: int) -> BaseSampler:
    """Opens ``search.sampler``.

    Args:
      name: a row of ``SAMPLERS``.
      choices: name -> what may be chosen.
      seed: of all draws.
    """
    return SAMPLERS[name](choices, seed)


class JointSampler(BaseSampler):
    """Draws all choices of a trial at once, each with equal probability.

    Args:
      choices: name -> what may be chosen.
      seed: of all draws.
    """

    def __init__(self, choices: Choices, seed: int) -> None:
        self._choices = {name: tuple(values) for name, values in choices.items()}
        self._seed = seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns all choices: they are drawn together."""
        del study, trial
        return distributions(self._choices)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns a value for each choice."""
        del search_space
        generator = np.random.default_rng([self._seed, trial.number])
        odds = self.probabilities(study)
        return {
            name: values[generator.choice(len(values), p=odds[name])]
            for name, values in self._choices.items()
        }

    def probabilities(self, study: Study) -> dict[str, np.ndarray]:
        """Returns how likely each value of each choice is now."""
        del study
        return {name: np.full(len(v), 1 / len(v)) for name, v in self._choices.items()}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Never called: there are no other choices."""
        del study, trial, param_distribution
        raise ValueError(f"'{param_name}' is no choice of this search")


class ReinforceSampler(JointSampler):
    """A policy of one softmax a choice, trained by REINFORCE with a baseline.

    In the line of MnasNet (arXiv 1807.11626), whose controller is trained by policy gradients; here
    the policy has no recurrent network, as its choices are few. After each finished trial, by
    number, the logits move along (reward - baseline) / deviation * (chosen - probabilities), plus
    the gradient of the entropy. Baseline and deviation are moving averages of the rewards. A trial
    that failed has reward 0.

    Args:
      choices: name -> what may be chosen.
      seed: of all draws.
      rate: of the steps along the gradient.
      entropy: weight of the entropy, which keeps the policy from settling early.
      decay: of the moving averages.
      warm_up: trials that are drawn evenly before the policy moves.
    """

    def __init__(
        self,
        choices: Choices,
        seed: int,
        *,
        rate: float = 0.25,
        entropy: float = 0.01,
        decay: float = 0.9,
        warm_up: int = 5,
    ) -> None:
        super().__init__(choices, seed)
        self._rate, self._entropy, self._decay, self._warm_up = rate, entropy, decay, warm_up
        self._forget()

    def _forget(self) -> None:
        self._logits = {name: np.zeros(len(values)) for name, values in self._choices.items()}
        self._rewards: list[float] = []  # of the warm-up
        self._baseline, self._variance = 0.0, 0.0
        self._seen: list[int] = []

    def probabilities(self, study: Study) -> dict[str, np.ndarray]:
        """Returns the policy after all trials that are finished."""
        finished = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
        finished = sorted((t for t in finished if self._counts(t)), key=lambda trial: trial.number)
        # Where processes finish in another order than they began, an earlier trial comes late.
        if [trial.number for trial in finished[: len(self._seen)]] != self._seen:
            self._forget()
        for trial in finished[len(self._seen) :]:
            self._learn(trial)
        return {name: _softmax(logits) for name, logits in self._logits.items()}

    def _counts(self, trial: FrozenTrial) -> bool:
        return set(self._choices) <= set(trial.params)

    def _learn(self, trial: FrozenTrial) -> None:
        self._seen.append(trial.number)
        reward = reward_of(trial)
        advantage = self._advantage(reward)
        for name, values in self._choices.items():
            odds = _softmax(self._logits[name])
            chosen = np.zeros(len(values))
            chosen[values.index(trial.params[name])] = 1.0
            surprise = np.log(odds)
            spread = -odds * (surprise - np.sum(odds * surprise))  # gradient of the entropy
            self._logits[name] += self._rate * (
                advantage * (chosen - odds) + self._entropy * spread
            )

    def _advantage(self, reward: float) -> float:
        if len(self._rewards) < self._warm_up:
            self._rewards.append(reward)
            self._baseline = float(np.mean(self._rewards))
            self._variance = float(np.var(self._rewards))
            return 0.0
        difference = reward - self._baseline
        advantage = difference / max(self._variance**0.5, 1e-6)
        share = 1 - self._decay
        self._baseline += share * difference
        self._variance = self._decay * (self._variance + share * difference**2)
        return float(np.clip(advantage, -3, 3))


class SeededTPE(BaseSampler):
    """Optuna's TPE, whose draws follow from the seed and the trial's number.

    By itself, a TPE sampler with a seed draws the same again in each process.

    Args:
      choices: name -> what may be chosen.
      seed: of all draws.
    """

    def __init__(self, choices: Choices, seed: int) -> None:
        del choices
        self._seed = seed
        self._current: tuple[int, TPESampler] | None = None

    def _of(self, trial: FrozenTrial) -> TPESampler:
        if self._current is None or self._current[0] != trial.number:
            seed = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]
            self._current = (trial.number, TPESampler(seed=int(seed)))
        return self._current[1]

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As TPE's."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As TPE's."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """As TPE's."""
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)


SAMPLERS: dict[str, Callable[[Choices, int], BaseSampler]] = {
    "rl": ReinforceSampler,
    "random": JointSampler,
    "tpe": SeededTPE,
}


def reward_of(trial: FrozenTrial) -> float:
    """Returns the reward of a finished trial; of one that failed, 0."""
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return float(trial.value)
    if trial.state == TrialState.PRUNED:
        return float(trial.user_attrs.get(REWARD, 0.0))
    return 0.0


def quiet_optuna() -> None:
    """Optuna prints a line a trial; ours are printed elsewhere."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    result: np.ndarray = powers / powers.sum()
    return result
