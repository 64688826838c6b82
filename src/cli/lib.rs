//! kubectl bulkhead: see, call and render tenants.
