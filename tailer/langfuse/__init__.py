"""Everything that speaks to Langfuse; the only package that imports langfuse or httpx."""
