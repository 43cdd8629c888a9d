"""Sessions: signing in and out in a browser."""
