"""Runs beside each other: stages that several share trained once, variants of a recipe, tables of runs."""
