"""Fault injection: real runs on tiny models whose processes are killed with kill -9 and that are resumed."""
