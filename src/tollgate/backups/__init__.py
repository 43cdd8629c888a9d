"""Creates backups of the database, and proves that they can be restored."""
