//! The families: ways to spoil a good message, each with the reason that must refuse it.

#[path = "families/json.rs"]
mod json;
#[path = "families/protocol.rs"]
mod protocol;

use super::good::Good;

/// A request, and why it must be refused.
#[derive(Clone, Debug)]
pub struct Case {
    pub family: &'static str,
    pub about: String,
    pub http_method: &'static str,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub reason: &'static str,
}

impl Case {
    /// The control: the message as it is.
    pub fn good(good: &Good) -> Self {
        Self {
            family: "control",
            about: String::new(),
            http_method: "POST",
            headers: good.headers(),
            body: good.body().into(),
            reason: "",
        }
    }

    fn body(
        good: &Good,
        family: &'static str,
        about: &str,
        body: impl Into<Vec<u8>>,
        reason: &'static str,
    ) -> Self {
        Self {
            family,
            about: about.into(),
            body: body.into(),
            reason,
            ..Self::good(good)
        }
    }

    fn headers(
        good: &Good,
        family: &'static str,
        about: &str,
        headers: &[(&str, &str)],
        reason: &'static str,
    ) -> Self {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Self {
            family,
            about: about.into(),
            headers,
            reason,
            ..Self::good(good)
        }
    }
}

/// Every family, of one good message.
pub fn of(good: &Good) -> Vec<Case> {
    [
        json::batches(good),
        json::encodings(good),
        json::duplicates(good),
        json::spellings(good),
        json::forms(good),
        json::ids(good),
        json::envelopes(good),
        json::parameters(good),
        json::arguments(good),
        protocol::hidden(good),
        protocol::handles(good),
        protocol::mirrors(good),
        protocol::eras(good),
        protocol::edge(good),
    ]
    .concat()
}

fn joined(members: &str, more: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    format!("{members}{comma}{more}")
}

fn with_arguments(good: &Good, arguments: &str) -> String {
    let name = good.name.unwrap_or_default();
    good.with_params(&format!(r#""name":"{name}","arguments":{arguments}"#))
}

/// The member of `params` that names what the message is about.
fn first_key(good: &Good) -> Option<&'static str> {
    good.name.map(|_| {
        if good.params.starts_with("\"uri\"") {
            "uri"
        } else {
            "name"
        }
    })
}
