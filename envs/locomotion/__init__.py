"""MuJoCo bodies whose goal, or whose own parameters, vary."""
