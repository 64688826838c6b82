//! Policy of one MCP server: the document that the operator writes, and what the sidecar makes of
//! it.

pub mod document;
