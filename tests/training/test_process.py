import pytest
import torch

from metarl.training.process import torch_threads


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_the_number_of_threads_of_the_caller_is_restored(error):
    def compute():
        with torch_threads(2):
            assert torch.get_num_threads() == 2
            if error:
                raise error

    torch.set_num_threads(3)
    try:
        if error:
            with pytest.raises(error):
                compute()
        else:
            compute()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
