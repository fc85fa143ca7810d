"""The memory itself: working memory, journal, consolidation and recall on Redis and Postgres."""
