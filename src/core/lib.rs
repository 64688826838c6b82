//! Bulkhead's pure core: policy, MCP envelopes, audit records. No I/O, no clock, no Kubernetes.
