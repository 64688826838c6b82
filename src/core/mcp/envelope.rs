//! The strict JSON-RPC 2.0 envelope: one message per body, borrowed, with raw slices.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;

use crate::{
    json::{self, Kind, Limits, Members, Reader, text::is_case_variant},
    reason::Reason,
    refusal::Refusal,
};

/// The members of the envelope.
const KEYS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// Greatest length of an id's text. Ids are kept and repeated, so they are bounded.
const MAX_ID: usize = 256;

/// Greatest length of a method's name.
const MAX_METHOD: usize = 128;

/// One JSON-RPC message.
#[derive(Debug)]
pub enum Message<'a> {
    /// `method` and `id`.
    Request(Request<'a>),
    /// `method` and no `id`.
    Notification(Notification<'a>),
    /// `id` and either `result` or `error`.
    Response(Response<'a>),
}

/// A request.
#[derive(Debug)]
pub struct Request<'a> {
    /// The whole body.
    pub body: &'a Bytes,
    /// Its id.
    pub id: Id<'a>,
    /// Its method, escapes resolved.
    pub method: Cow<'a, str>,
    /// Its parameters.
    pub params: Option<Params<'a>>,
}

/// A notification.
#[derive(Debug)]
pub struct Notification<'a> {
    /// The whole body.
    pub body: &'a Bytes,
    /// Its method, escapes resolved.
    pub method: Cow<'a, str>,
    /// Its parameters.
    pub params: Option<Params<'a>>,
}

/// A response.
#[derive(Debug)]
pub struct Response<'a> {
    /// The whole body.
    pub body: &'a Bytes,
    /// The id of the request that it answers. An error may lack one.
    pub id: Option<Id<'a>>,
    /// What it says.
    pub outcome: Outcome<'a>,
}

/// What a response says: a raw value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// `result`, an object.
    Result(&'a str),
    /// `error`, an object.
    Error(&'a str),
}

/// A JSON-RPC id: a string, or an integer of 64 bits in its one spelling.
#[derive(Clone, Copy, Debug)]
pub struct Id<'a> {
    raw: &'a str,
}

impl<'a> Id<'a> {
    pub(crate) fn read(raw: &'a str) -> Result<Self, Reason> {
        let valid = raw.len() <= MAX_ID
            && match Kind::of(raw) {
                Kind::String => true,
                // In JSON zero alone has a second spelling as an integer.
                Kind::Number => raw != "-0" && raw.parse::<i64>().is_ok(),
                _ => false,
            };
        if valid {
            Ok(Self { raw })
        } else {
            Err(Reason::InvalidId)
        }
    }

    /// The id as it was written.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// Whether it is the id that was written as `raw`. Two spellings of one string are equal:
    /// servers unescape what clients escaped. A string is never an integer.
    pub fn is(&self, raw: &str) -> bool {
        self.raw == raw
            || (Kind::of(raw) == Kind::String
                && json::string(raw).is_some_and(|text| json::string(self.raw) == Some(text)))
    }
}

/// The parameters of a request or notification: an object.
#[derive(Debug)]
pub struct Params<'a> {
    raw: &'a str,
    members: Members<'a>,
}

impl<'a> Params<'a> {
    /// The whole object.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// Its members: decoded key, raw value.
    pub fn members(&self) -> &[(Cow<'a, str>, &'a str)] {
        &self.members
    }

    /// The raw value of a member.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        json::get(&self.members, key)
    }

    /// The decoded text of a member that is a string.
    pub fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key).and_then(json::string)
    }
}

impl<'a> Message<'a> {
    /// The raw id, of a request or a response.
    pub fn id(&self) -> Option<&'a str> {
        match self {
            Self::Request(request) => Some(request.id.raw),
            Self::Notification(_) => None,
            Self::Response(response) => response.id.map(|id| id.raw),
        }
    }

    /// The method, of a request or a notification.
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Request(request) => Some(&request.method),
            Self::Notification(notification) => Some(&notification.method),
            Self::Response(_) => None,
        }
    }

    /// The parameters, of a request or a notification.
    pub fn params(&self) -> Option<&Params<'a>> {
        match self {
            Self::Request(request) => request.params.as_ref(),
            Self::Notification(notification) => notification.params.as_ref(),
            Self::Response(_) => None,
        }
    }

    /// The whole body.
    pub fn body(&self) -> &'a Bytes {
        match self {
            Self::Request(request) => request.body,
            Self::Notification(notification) => notification.body,
            Self::Response(response) => response.body,
        }
    }
}

/// Where a raw slice of a body lies in it.
pub(crate) fn span(body: &[u8], raw: &str) -> Range<usize> {
    let start = (raw.as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
    start..start + raw.len()
}

/// Reads one message. The refusal answers the request when its id could be read.
pub fn read(body: &Bytes, limits: Limits) -> Result<Message<'_>, Refusal> {
    let mut parts = Parts::default();
    let read = read_parts(body, limits, &mut parts).and_then(|()| parts.message(body));
    read.map_err(|reason| Refusal::plain(reason).answering(parts.id.map(|id| id.raw)))
}

#[derive(Default)]
struct Parts<'a> {
    version: bool,
    id: Option<Id<'a>>,
    method: Option<Cow<'a, str>>,
    params: Option<Params<'a>>,
    result: Option<&'a str>,
    error: Option<&'a str>,
}

fn read_parts<'a>(body: &'a Bytes, limits: Limits, parts: &mut Parts<'a>) -> Result<(), Reason> {
    let mut reader = Reader::new(json::text(body, limits)?, limits.depth);
    match reader.kind()? {
        Kind::Object => {}
        Kind::Array => return Err(Reason::Batch),
        _ => return Err(Reason::InvalidEnvelope),
    }
    // The first fault of the envelope is kept until the JSON is known to be well-formed, so that
    // the reason doesn't depend on the order of members.
    let mut fault = None;
    reader.members(|reader, key| {
        let read = match key.as_ref() {
            "params" if reader.kind()? == Kind::Object => {
                parts.params = Some(read_params(reader)?);
                Ok(())
            }
            _ => {
                let raw = reader.value()?;
                parts.take(key, raw)
            }
        };
        if let Err(reason) = read {
            fault.get_or_insert(reason);
        }
        Ok(())
    })?;
    reader.end()?;
    fault.map_or(Ok(()), Err)
}

fn read_params<'a>(reader: &mut Reader<'a>) -> Result<Params<'a>, Reason> {
    let mut members = Vec::with_capacity(4);
    let raw = reader.spanning(|reader| {
        reader.members(|reader, key| {
            members.push((key.clone(), reader.value()?));
            Ok(())
        })
    })?;
    Ok(Params { raw, members })
}

impl<'a> Parts<'a> {
    fn take(&mut self, key: &str, raw: &'a str) -> Result<(), Reason> {
        match key {
            "jsonrpc" if json::string(raw).is_some_and(|version| version == "2.0") => self.version = true,
            "id" if raw == "null" => return Err(Reason::InvalidId),
            "id" => self.id = Some(Id::read(raw)?),
            "method" => match json::string(raw) {
                Some(method) if method.len() <= MAX_METHOD => self.method = Some(method),
                _ => return Err(Reason::InvalidEnvelope),
            },
            "params" => return Err(Reason::InvalidParams),
            "result" if Kind::of(raw) == Kind::Object => self.result = Some(raw),
            "error" if Kind::of(raw) == Kind::Object => self.error = Some(raw),
            other if KEYS.into_iter().any(|known| is_case_variant(other, known)) => {
                return Err(Reason::CaseVariant);
            }
            _ => return Err(Reason::InvalidEnvelope),
        }
        Ok(())
    }

    fn message(&mut self, body: &'a Bytes) -> Result<Message<'a>, Reason> {
        if !self.version {
            return Err(Reason::InvalidEnvelope);
        }
        let params = self.params.take();
        match (self.method.take(), self.id, self.result, self.error) {
            (Some(method), Some(id), None, None) => Ok(Message::Request(Request {
                body,
                id,
                method,
                params,
            })),
            (Some(method), None, None, None) => {
                Ok(Message::Notification(Notification { body, method, params }))
            }
            (None, Some(id), Some(result), None) if params.is_none() => Ok(Message::Response(Response {
                body,
                id: Some(id),
                outcome: Outcome::Result(result),
            })),
            (None, id, None, Some(error)) if params.is_none() => Ok(Message::Response(Response {
                body,
                id,
                outcome: Outcome::Error(error),
            })),
            _ => Err(Reason::InvalidEnvelope),
        }
    }
}

#[cfg(test)]
#[path = "envelope/tests.rs"]
mod tests;
