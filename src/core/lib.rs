//! Bulkhead's pure core: what a tenant's policy says, how an MCP message is read, decided and
//! rewritten, and what the audit records. No I/O, no clock, no Kubernetes, no async.
//!
//! The way of one request through the sidecar:
//!
//! ```
//! use bulkhead_core::{
//!     json::Limits,
//!     mcp::{self, Inventory, MirroredHeaders},
//!     policy::{Answer, Channel, CompiledPolicy, Context},
//! };
//! use bytes::Bytes;
//!
//! # let document = br#"{"format":1,"tenant":{"name":"acme","uid":"u"},"server":"crm",
//! #   "hostnames":["crm.acme.svc"],"upstream":{"port":3000,"path":"/mcp"},
//! #   "agents":[{"name":"billing","spiffeId":"spiffe://acme.cluster.local/ns/acme-agents/sa/billing","roles":["reader"]}],
//! #   "tools":[{"name":"list_invoices","roles":["reader"],"forced":{"tenant_id":{"string":"7f9c"}}}]}"#;
//! // Once, and again when the mounted document changes. The sidecar shares it as a snapshot.
//! let policy = CompiledPolicy::from_json(document)?;
//! // What the server's own lists taught; shared and replaced likewise.
//! let mut inventory = Inventory::default();
//!
//! let limits = Limits::default();
//! # let body = Bytes::from(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_invoices"}}"#);
//! # let headers: [(&str, &[u8]); 1] = [("mcp-protocol-version", b"2025-11-25")];
//! // 1. Read the body. A refusal has the status and the bytes for the client.
//! let message = mcp::read(&body, limits).map_err(|refusal| (refusal.status(), refusal.body())).unwrap();
//! // 2. Who asks: by the URI of the client's certificate, and nothing else.
//! let caller = policy.agent("spiffe://acme.cluster.local/ns/acme-agents/sa/billing");
//! // 3. Decide. The audit record is made of `message` and `decision`.
//! let headers = MirroredHeaders::read(headers);
//! // The sidecar seals what servers make and clients present again (`handles`); here, nothing is.
//! let known = inventory.clone();
//! let context = Context::offline(&known, limits);
//! let decision = policy.decide(caller, &message, &headers, context);
//! // 4. Only what was permitted can go upstream: these bytes, and these `Mcp-*` headers instead
//! //    of all of the client's.
//! let permitted = decision.outcome.map_err(|refusal| refusal.body()).unwrap();
//! assert!(permitted.body().ends_with(br#""arguments":{"tenant_id":"7f9c"},"name":"list_invoices"}}"#));
//! let headers = permitted.headers();
//! # assert_eq!(headers, [("MCP-Protocol-Version".into(), "2025-11-25".to_owned())]);
//! // 5. Every message that comes back, a JSON body or the data of an event, is an answer to what
//! //    was asked, or is refused. Policy and caller are looked up again: they may have changed.
//! # let reply = Bytes::from(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#);
//! let expected = permitted.expected().unwrap(); // none for a notification
//! match policy.answer(caller, Channel::Answer(expected), &reply, context) {
//!     Answer::Final(answer) => {
//!         if let Some(learned) = inventory.learning(&answer.learned) {
//!             inventory = learned;
//!         }
//!         // answer.body is the client's; answer.outcome and answer.dropped the audit's.
//!     }
//!     Answer::Event(body) => { /* pass it on and read the next one */ }
//!     Answer::ListChanged => { /* look at the server's lists, and tell whom it concerns (`Views`) */ }
//!     Answer::Dropped(reason) => { /* record it and read the next one */ }
//!     Answer::Refused(refusal) => { /* refusal.body() ends the exchange */ }
//! }
//! # Ok::<(), bulkhead_core::policy::CompileError>(())
//! ```

// Tests are tables of cases, with one type per table.
#![cfg_attr(test, allow(clippy::too_many_lines, clippy::type_complexity))]

pub mod audit;
pub mod control;
pub mod credential;
pub mod handles;
pub mod json;
pub mod mcp;
pub mod pod;
pub mod policy;
pub mod reason;
pub mod refusal;
pub mod tokens;

pub use reason::Reason;
pub use refusal::Refusal;
