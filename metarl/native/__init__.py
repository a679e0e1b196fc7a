"""The compiled library: recurrent layers over whole sequences, and how it is found.

`recurrent.h` is its only code, built for several instruction sets; `library` loads the fastest one
that the processor can run. Without a compiler at installation there is none, and the same is
computed in torch.
"""
