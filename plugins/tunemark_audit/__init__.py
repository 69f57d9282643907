"""Applies the rules for imported claims to own runs."""
