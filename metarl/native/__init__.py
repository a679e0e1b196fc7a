"""The compiled library: recurrent layers, perceptrons, the loss of PPO and steps of Adam.

The headers are built for several instruction sets; `library` loads the fastest build that the
processor can run, and the other modules call it, each that of its name. Without a compiler at
installation there is none, and the same is computed in torch.
"""
