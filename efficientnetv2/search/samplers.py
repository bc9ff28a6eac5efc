"""Draws what to try next, as Optuna samplers: REINFORCE, random and TPE.

All draws of a trial follow from the seed and the trial's number. The state of a policy follows from
the finished trials, in the order of their numbers. So a search can be resumed, and run in several
processes, without a state file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from efficientnetv2.search.attributes import REWARD
from hparams.search_space import Range

Choices = Mapping[str, Union[Sequence[Any], Range]]


def distributions(choices: Choices) -> dict[str, BaseDistribution]:
    """Returns the choices as Optuna distributions."""
    return {name: _distribution(values) for name, values in choices.items()}


def _distribution(values: Sequence[Any] | Range) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(tuple(values))
    if values.is_whole:
        return IntDistribution(int(values.low), int(values.high), log=values.is_log)
    return FloatDistribution(values.low, values.high, log=values.is_log)


def suggest(trial: Trial, name: str, values: Sequence[Any] | Range) -> None:
    """Draws a choice of a trial by the sampler of its study, unless it is drawn already."""
    if not isinstance(values, Range):
        trial.suggest_categorical(name, values)
    elif values.is_whole:
        trial.suggest_int(name, int(values.low), int(values.high), log=values.is_log)
    else:
        trial.suggest_float(name, values.low, values.high, log=values.is_log)


def build_sampler(name: str, choices: Choices, *, seed: int) -> BaseSampler:
    """Builds the sampler that ``search.sampler`` names.

    Args:
      name: a row of ``SAMPLERS``; ``rl`` takes no ranges.
      choices: name -> values to choose from.
      seed: random seed of all draws.
    """
    return SAMPLERS[name](choices, seed)


class JointSampler(BaseSampler):
    """Draws all choices of a trial at once, each with equal probability.

    Args:
      choices: name -> values to choose from.
      seed: random seed of all draws.
    """

    def __init__(self, choices: Choices, seed: int) -> None:
        self._choices = {
            name: values if isinstance(values, Range) else tuple(values)
            for name, values in choices.items()
        }
        self._seed = seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns the distributions of all choices, which are drawn together."""
        del study, trial
        return distributions(self._choices)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns a value for each choice."""
        del search_space
        generator = np.random.default_rng([self._seed, trial.number])
        probabilities = self.probabilities(study)
        return {
            name: values.at(generator.random())
            if isinstance(values, Range)
            else values[generator.choice(len(values), p=probabilities[name])]
            for name, values in self._choices.items()
        }

    def probabilities(self, study: Study) -> dict[str, np.ndarray]:
        """Returns the current probability of each value of each choice that is not a range."""
        del study
        return {
            name: np.full(len(values), 1 / len(values))
            for name, values in self._choices.items()
            if not isinstance(values, Range)
        }

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Rejects any other choice; Optuna has no reason to call this."""
        del study, trial, param_distribution
        raise ValueError(f"'{param_name}' is not a choice of this search")


class ReinforceSampler(JointSampler):
    """Draws from a policy, one softmax for each choice, trained by REINFORCE with a baseline.

    This follows MnasNet (arXiv 1807.11626), whose controller is trained by policy gradients; here
    the policy needs no recurrent network, because there are few choices. For each finished trial,
    in the order of their numbers, the logits move by (reward - baseline) / deviation *
    (chosen - probabilities), plus the gradient of the entropy. Baseline and deviation are moving
    averages of the rewards. A failed trial has reward 0.

    Args:
      choices: name -> values to choose from.
      seed: random seed of all draws.
      rate: learning rate of the policy.
      entropy: weight of the entropy, which keeps the policy from converging too early.
      decay: decay of the moving averages.
      warm_up: number of trials drawn uniformly before the policy moves.
    """

    def __init__(
        self,
        choices: Mapping[str, Sequence[Any]],
        seed: int,
        *,
        rate: float = 0.25,
        entropy: float = 0.01,
        decay: float = 0.9,
        warm_up: int = 5,
    ) -> None:
        super().__init__(choices, seed)
        self._values = {name: tuple(values) for name, values in choices.items()}
        self._rate, self._entropy, self._decay, self._warm_up = rate, entropy, decay, warm_up
        self._reset()

    def _reset(self) -> None:
        self._logits = {name: np.zeros(len(values)) for name, values in self._values.items()}
        self._rewards: list[float] = []  # of the warm-up
        self._baseline, self._variance = 0.0, 0.0
        self._learned: list[int] = []  # numbers of the trials in the policy

    def probabilities(self, study: Study) -> dict[str, np.ndarray]:
        """Returns the policy's probabilities after all finished trials."""
        finished = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
        finished = sorted((t for t in finished if self._counts(t)), key=lambda trial: trial.number)
        # With several processes, a trial can finish after one with a higher number.
        if [trial.number for trial in finished[: len(self._learned)]] != self._learned:
            self._reset()
        for trial in finished[len(self._learned) :]:
            self._learn(trial)
        return {name: _softmax(logits) for name, logits in self._logits.items()}

    def _counts(self, trial: FrozenTrial) -> bool:
        return set(self._choices) <= set(trial.params)

    def _learn(self, trial: FrozenTrial) -> None:
        self._learned.append(trial.number)
        reward = reward_of(trial)
        advantage = self._advantage(reward)
        for name, values in self._values.items():
            probabilities = _softmax(self._logits[name])
            chosen = np.zeros(len(values))
            chosen[values.index(trial.params[name])] = 1.0
            log = np.log(probabilities)
            entropy_gradient = -probabilities * (log - np.sum(probabilities * log))
            self._logits[name] += self._rate * (
                advantage * (chosen - probabilities) + self._entropy * entropy_gradient
            )

    def _advantage(self, reward: float) -> float:
        if len(self._rewards) < self._warm_up:
            self._rewards.append(reward)
            self._baseline = float(np.mean(self._rewards))
            self._variance = float(np.var(self._rewards))
            return 0.0
        difference = reward - self._baseline
        advantage = difference / max(self._variance**0.5, 1e-6)
        weight = 1 - self._decay
        self._baseline += weight * difference
        self._variance = self._decay * (self._variance + weight * difference**2)
        return float(np.clip(advantage, -3, 3))


class SeededTPE(BaseSampler):
    """Draws by Optuna's TPE, seeded by the search's seed and the trial's number.

    Optuna's own sampler with a seed would draw the same values in every process.

    Args:
      choices: name -> values to choose from.
      seed: random seed of all draws.
    """

    def __init__(self, choices: Choices, seed: int) -> None:
        del choices
        self._seed = seed
        self._current: tuple[int, TPESampler] | None = None

    def _sampler_for(self, trial: FrozenTrial) -> TPESampler:
        if self._current is None or self._current[0] != trial.number:
            seed = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]
            self._current = (trial.number, TPESampler(seed=int(seed)))
        return self._current[1]

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Delegates to TPE."""
        return self._sampler_for(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Delegates to TPE."""
        return self._sampler_for(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Delegates to TPE."""
        return self._sampler_for(trial).sample_independent(
            study, trial, param_name, param_distribution
        )


SAMPLERS: dict[str, Callable[[Any, int], BaseSampler]] = {
    "rl": ReinforceSampler,
    "random": JointSampler,
    "tpe": SeededTPE,
}


def reward_of(trial: FrozenTrial) -> float:
    """Returns the reward of a finished trial; 0 if it failed."""
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return float(trial.value)
    if trial.state == TrialState.PRUNED:
        return float(trial.user_attrs.get(REWARD, 0.0))
    return 0.0


def silence_optuna() -> None:
    """Turns off the line that Optuna prints for each trial; the search prints its own."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    result: np.ndarray = powers / powers.sum()
    return result
