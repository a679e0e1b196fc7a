"""MuJoCo bodies with a varying goal or varying physical parameters."""
