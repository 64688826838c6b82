//! A real Kubernetes for tests and the demo: built from Go modules, or a context that is named.
