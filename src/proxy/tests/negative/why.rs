//! Why something must be refused, and what the client must be told then: as the two tables of refusals say, and no
//! table of this suite's own.

use bulkhead_core::{
    Reason, Refusal, json,
    mcp::{self, Message},
};
use bulkhead_proxy::{refusal::EdgeRefusal, testing::Reply};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json as value};

use crate::good::{Form, Good};

/// Nesting of messages, as a sidecar takes it.
const DEPTH: usize = 64;

/// Why.
#[derive(Clone, Copy, Debug)]
pub enum Why {
    /// What the message is, or asks for.
    Message(Reason),
    /// What HTTP alone says.
    Edge(EdgeRefusal),
}

impl From<Reason> for Why {
    fn from(reason: Reason) -> Self {
        Self::Message(reason)
    }
}

impl From<EdgeRefusal> for Why {
    fn from(refusal: EdgeRefusal) -> Self {
        Self::Edge(refusal)
    }
}

impl Why {
    /// As it is on record.
    pub fn code(self) -> &'static str {
        match self {
            Self::Message(reason) => reason.as_str(),
            Self::Edge(refusal) => refusal.code(),
        }
    }

    /// What is wrong with a reply that must tell it.
    pub fn differs(self, good: &Good, http_method: &str, sent: &[u8], reply: &Reply) -> Option<String> {
        let (status, expected) = match self {
            Self::Message(reason) => of_message(good, reason, sent, reply),
            Self::Edge(refusal) => {
                let said = value!({"id": null, "code": -31403, "reason": refusal.code(), "isError": null});
                (refusal.status(), said)
            }
        };
        // To HEAD nobody says anything.
        let told = if reply.body.is_empty() {
            &Value::Null
        } else {
            &said(&json_of(reply))
        };
        let silent = reply.body.is_empty() && http_method == "HEAD";
        (reply.status != status || !(silent || *told == expected))
            .then(|| format!("{} {told} instead of {status} {expected}", reply.status))
    }
}

fn of_message(good: &Good, reason: Reason, sent: &[u8], reply: &Reply) -> (StatusCode, Value) {
    let refusal = match reason {
        // The one reason whose code depends on the era.
        Reason::ResourceNotGranted => Refusal::resource(reason, ""),
        _ => Refusal::plain(reason),
    };
    let refusal = match good.method {
        "tools/call" => refusal,
        // Only the result of a tool can say that it failed.
        _ => refusal.as_protocol_error(),
    };
    let answering = |id: Option<&str>| refusal.clone().answering(id).in_era(Some(good.era));
    let limits = json::Limits {
        bytes: usize::MAX,
        depth: DEPTH,
    };
    let id = json_of(reply)["id"].to_string();
    let bytes = Bytes::copy_from_slice(sent);
    let read = mcp::read(&bytes, limits);
    let answered = match &read {
        Ok(Message::Request(request)) => Some(request.id.raw()),
        Ok(_) => None,
        // Of what isn't even a message the id may not be known; then the status says it.
        Err(_) if id == "null" && answering(Some("7")).status() == 400 => None,
        Err(_) if String::from_utf8_lossy(sent).contains(&format!(r#""id":{id}"#)) => Some(id.as_str()),
        Err(_) => (good.form == Form::Request).then_some("7"),
    };
    let refusal = answering(answered);
    let body = serde_json::from_slice(&refusal.body()).unwrap();
    (StatusCode::from_u16(refusal.status()).unwrap(), said(&body))
}

/// The last message of a reply. Whatever a case came to, it is told, so what is none is null.
pub fn json_of(reply: &Reply) -> Value {
    let text = String::from_utf8_lossy(&reply.body);
    let last = text.lines().rev().find_map(|line| line.strip_prefix("data: "));
    serde_json::from_str(last.unwrap_or(&text)).unwrap_or_default()
}

/// What of a reply must be as expected: all but the words.
pub fn said(reply: &Value) -> Value {
    value!({
        "id": reply["id"], "code": reply["error"]["code"], "reason": reply["error"]["data"]["reason"],
        "isError": reply["result"]["isError"],
    })
}
