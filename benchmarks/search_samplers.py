"""Compares the samplers of the search by the rewards of the networks that they try.

    python -m benchmarks.search_samplers

Nothing is trained: the reward is made up, so that the best network is known. It is 0.6, plus 0.3
times the fraction of choices that are right, plus 0.1 times the fraction of neighbouring pairs that
are both right, plus noise of deviation 0.01, as a short training has. Writes a CSV with means over
30 seeds, each with another best network.
"""

from __future__ import annotations

import csv
import pathlib

import numpy as np
import optuna

from efficientnetv2.search.samplers import SAMPLERS, build_sampler, distributions, silence_optuna
from efficientnetv2.search.space import build_space
from hparams import resolve

SEEDS, TRIALS, MARKS, NOISE = 30, 200, (24, 50, 100, 200), 0.01
RESULT = pathlib.Path(__file__).parent / "results" / "search_samplers-synthetic.csv"


def reward(point: dict, best: dict) -> float:
    right = [point[name] == best[name] for name in best]
    pairs = [one and other for one, other in zip(right, right[1:])]
    return 0.6 + 0.3 * float(np.mean(right)) + 0.1 * float(np.mean(pairs))


def run(sampler: str, choices: dict, *, seed: int) -> np.ndarray:
    """Returns the rewards, without noise, of the networks that a sampler tried."""
    generator = np.random.default_rng([seed, 1])
    best = {name: values[generator.integers(len(values))] for name, values in choices.items()}
    study = optuna.create_study(
        direction="maximize", sampler=build_sampler(sampler, choices, seed=seed)
    )
    rewards = []
    for _ in range(TRIALS):
        trial = study.ask(distributions(choices))
        rewards.append(reward(trial.params, best))
        study.tell(trial, rewards[-1] + NOISE * generator.standard_normal())
    return np.array(rewards)


def main() -> None:
    silence_optuna()
    space = build_space(resolve("efficientnetv2-s", "imagenet2012"))
    rows = []
    for sampler in SAMPLERS:
        rewards = np.stack([run(sampler, dict(space.choices), seed=seed) for seed in range(SEEDS)])
        for trials in MARKS:
            so_far = rewards[:, :trials]
            means, bests = so_far.mean(axis=1), so_far.max(axis=1)
            rows.append(
                {
                    "sampler": sampler,
                    "trials": trials,
                    "mean_reward": round(float(means.mean()), 4),
                    "mean_reward_sd_over_seeds": round(float(means.std()), 4),
                    "best_reward": round(float(bests.mean()), 4),
                    "best_reward_sd_over_seeds": round(float(bests.std()), 4),
                }
            )
            print(rows[-1], flush=True)
    with RESULT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
