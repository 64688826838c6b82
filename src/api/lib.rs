//! Bulkhead's Kubernetes API: the custom resources, their validation rules and conditions.
