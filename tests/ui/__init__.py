"""Tests of the dashboard: pure views and charts from golden logs, the form, and clicks in a real browser."""
