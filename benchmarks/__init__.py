"""Figures to be measured again: each module is run by ``python -m``."""
