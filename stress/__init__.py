"""Stress tests: shapes and loads that break runtimes which only look right on small graphs.

``pytest stress`` runs the short forms, fit for CI. ``DFLOW_STRESS=20 pytest stress`` runs
them twenty times as long (any whole number). Every test verifies what arrived, in which
order, and that the run's books balance.
"""
