"""Vercel's door: exports app, nothing else."""

from tollgate.app import create_app

app = create_app()
