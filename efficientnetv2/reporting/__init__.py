"""Reports results to people: progress, tables, pictures and result files."""
