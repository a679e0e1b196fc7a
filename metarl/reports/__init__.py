"""A page of HTML about evaluated runs."""
