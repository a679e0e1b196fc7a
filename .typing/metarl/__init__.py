"""Shows type checkers the tree as it is installed; never imported."""
