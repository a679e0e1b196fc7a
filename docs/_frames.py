"""Writes frames of families that cannot be rendered when the site is built; they are committed.

    MUJOCO_GL=egl python docs/_frames.py        # with the extra mujoco, then with metaworld

Run it with one extra installed at a time. Families whose package is missing keep their frame.
"""

from _pages import COMMITTED_FRAMES, PREFIX, frame, slug
from PIL import Image

import metarl
from metarl.errors import MetaRLError

ACTIONS, EDGE = 25, 320
"""random actions before the frame is rendered, and its width and height in pixels"""


def main() -> None:
    """Writes the frames of all families that can be rendered here."""
    COMMITTED_FRAMES.mkdir(exist_ok=True)
    for task_id in metarl.task_ids():
        try:
            family = metarl.make_family(task_id)
            if task_id.startswith(PREFIX) and not isinstance(family, metarl.TaskFamily):
                path = COMMITTED_FRAMES / f"{slug(task_id)}.png"
                Image.fromarray(frame(task_id, ACTIONS)).resize((EDGE, EDGE)).save(
                    path, optimize=True
                )
                print(path)
        except (ImportError, MetaRLError) as error:
            print(f"{task_id}: {error}")


if __name__ == "__main__":
    main()
