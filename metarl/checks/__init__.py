"""The conformance kit: what a task environment must keep."""
