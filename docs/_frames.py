"""Pictures of the families that need a screen to be drawn; kept in the repository for their pages.

    MUJOCO_GL=egl python docs/_frames.py        # with the extra mujoco, then with metaworld

Run with one extra installed at a time: families whose package is missing keep their picture.
"""

from pathlib import Path

import gymnasium
import numpy as np
from PIL import Image

import metarl
from metarl.errors import MetaRLError

FRAMES = Path(__file__).parent / "images" / "families"
STEPS, EDGE = 25, 320
"""random moves before the picture is taken, and its pixels along an edge"""


def main() -> None:
    """Writes what can be drawn here."""
    FRAMES.mkdir(exist_ok=True)
    for task_id in metarl.task_ids():
        try:
            family = metarl.make_family(task_id)
            if task_id.startswith("metarl/") and not isinstance(family, metarl.TaskFamily):
                path = FRAMES / f"{task_id.removeprefix('metarl/')}.png"
                Image.fromarray(frame(task_id)).resize((EDGE, EDGE)).save(path, optimize=True)
                print(path)
        except (ImportError, MetaRLError) as error:
            print(f"{task_id}: {error}")


def frame(task_id: str) -> np.ndarray:
    """After some random moves, [H, W, 3] uint8."""
    env = gymnasium.make(task_id, render_mode="rgb_array")
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(STEPS):
        env.step(env.action_space.sample())
    picture = np.asarray(env.render())
    env.close()
    return picture


if __name__ == "__main__":
    main()
