"""Test tools: the contract of stores as tests, faults, releases, golden states."""
