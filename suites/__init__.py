"""Example suites: one family of actors a file."""
