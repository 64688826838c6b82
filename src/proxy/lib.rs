//! Bulkhead's enforcing sidecar: the only way into an MCP server.
