//! The W3C trace context of a call: by its random id the call's audit record is found.

use anyhow::{Result, anyhow};
use rustls::crypto::aws_lc_rs;

/// A trace and its only span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    id: String,
    span: String,
}

impl Trace {
    /// A new one.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 24];
        aws_lc_rs::default_provider()
            .secure_random
            .fill(&mut bytes)
            .map_err(|_| anyhow!("the system gives no random numbers"))?;
        let (id, span) = bytes.split_at(16);
        Ok(Self {
            id: hex(id),
            span: hex(span),
        })
    }

    /// The trace id: 32 hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The value of `traceparent`: version 00, sampled.
    pub fn parent(&self) -> String {
        format!("00-{}-{}-01", self.id, self.span)
    }

    /// One for tests that compare whole objects.
    #[cfg(test)]
    pub fn for_test() -> Self {
        Self {
            id: "0af7651916cd43dd8448eb211c80319c".into(),
            span: "b7ad6b7169203331".into(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_parent_has_the_form_of_the_standard() {
        let trace = Trace::random().unwrap();
        let parent = trace.parent();
        let fields: Vec<_> = parent.split('-').map(str::len).collect();
        assert_eq!(fields, [2, 32, 16, 2]);
        assert!(parent.contains(trace.id()));
        assert_ne!(trace, Trace::random().unwrap());
    }
}
