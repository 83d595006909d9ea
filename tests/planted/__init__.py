"""Faults planted into the code on purpose, and the machinery that must find each of them."""
