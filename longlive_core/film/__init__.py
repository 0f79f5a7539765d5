"""Films that are iterated lazily, block by block, in memory or in a take; both hosts run these."""
