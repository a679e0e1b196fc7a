"""RL^2 learns to play bandits that it has never seen: training, evaluation, adaptation curve.

    make demo          # about two minutes on two CPU cores, installation included

Trains RL^2 on 5-armed Bernoulli bandits with 10 pulls, then evaluates it on 10,000 unseen bandits
next to a random policy, Thompson sampling, the exact Bayes optimum (6.65999 by dynamic programming)
and an oracle that knows the best arm. Expect at least 6.60 of 6.66. The figure is `adaptation.png`.
"""

import shutil
from pathlib import Path

from reporting import half_interval

import metarl
from metarl.envs.bandits.multi_armed import BernoulliBandit

RUN = Path("runs/demo")


def main() -> None:
    """Train, evaluate, print, plot."""
    shutil.rmtree(RUN, ignore_errors=True)  # only the demo writes to this folder
    family = BernoulliBandit(arms=5, pulls=10)
    run = metarl.train("rl2", family, seed=0, iterations=500, out=RUN)
    curves = metarl.evaluate(run, num_tasks=10_000, progress=True)

    print("\nReward of 10 pulls, mean over 10,000 unseen bandits with 5 arms (95% interval)\n")
    for curve in sorted(curves, key=lambda curve: float(curve.returns.sum(0).mean())):
        total = curve.returns.sum(0)
        print(f"  {curve.label:30} {total.mean():6.3f} ± {half_interval(total):.3f}")
    print(f"  {'exact optimum, computed':30} {family.optimal_return():8.5f}")
    figure, *_ = metarl.plot([run])
    print(f"\nReward of each pull: {figure}")


if __name__ == "__main__":
    main()
