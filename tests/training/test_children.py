import re

import pytest

from metarl.training.children import exit_text


@pytest.mark.parametrize(
    ("code", "text"),
    [(-9, "ended by SIGKILL; is there enough memory"), (1, "exit code 1; .* `if __name__ == ")],
)
def test_the_end_of_a_process_that_could_not_report_is_explained(code, text):
    assert re.search(text, exit_text(code))
