//! Bulkhead's operator: makes and keeps every tenant's stack.
