"""Predictions as table, JSON, CSV, Parquet, drawn picture, and HTML page."""
