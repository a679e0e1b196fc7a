"""Pictures of the families that need a screen to be drawn; kept in the repository for their pages.

    MUJOCO_GL=egl python docs/_frames.py        # with the extra mujoco, then with metaworld

Run with one extra installed at a time: families whose package is missing keep their picture.
"""

from _pages import KEPT, OURS, frame, slug
from PIL import Image

import metarl
from metarl.errors import MetaRLError

MOVES, EDGE = 25, 320
"""random moves before the picture is taken, and its pixels along an edge"""


def main() -> None:
    """Writes what can be drawn here."""
    KEPT.mkdir(exist_ok=True)
    for task_id in metarl.task_ids():
        try:
            family = metarl.make_family(task_id)
            if task_id.startswith(OURS) and not isinstance(family, metarl.TaskFamily):
                path = KEPT / f"{slug(task_id)}.png"
                Image.fromarray(frame(task_id, MOVES)).resize((EDGE, EDGE)).save(
                    path, optimize=True
                )
                print(path)
        except (ImportError, MetaRLError) as error:
            print(f"{task_id}: {error}")


if __name__ == "__main__":
    main()
