-- For one transaction, so that a pooler may stand in between: the index goes on until enough pass the filter, {candidates} at a
-- time and {tuples} in all, in about their order. Without sorts and joins of other kinds, nothing but the index can give that order.
SET LOCAL hnsw.iterative_scan = relaxed_order;
SET LOCAL hnsw.ef_search = {candidates};
SET LOCAL hnsw.max_scan_tuples = {tuples};
SET LOCAL enable_sort = off;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
