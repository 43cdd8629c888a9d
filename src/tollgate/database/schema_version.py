"""What the code needs of the database. A constant, since the migrations do not travel to serverless hosts."""

NEEDED = "20261130000000"
"""The newest migration that the code relies on; a test compares it with supabase/migrations."""
