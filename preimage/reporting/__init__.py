"""Reads finished runs and writes them up: tables, charts, pictures and one page."""
