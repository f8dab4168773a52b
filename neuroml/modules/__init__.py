"""Flax modules and networks over plain dictionaries."""
