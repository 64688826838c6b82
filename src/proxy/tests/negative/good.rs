//! One good message of each method that a client may send, in each era. Handles stand in them as `<billing's task>`.

use bulkhead_core::mcp::{
    Era,
    methods::{self, Direction, Entry},
};
use http::StatusCode;

/// A good message, in parts that a family spoils.
#[derive(Clone, Debug)]
pub struct Good {
    pub era: Era,
    pub form: Form,
    /// Its name; of a response and what HTTP alone says there is none.
    pub method: &'static str,
    /// The members of `params` apart from `_meta`, as text.
    pub params: &'static str,
    /// What `Mcp-Name` mirrors.
    pub name: Option<&'static str>,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Request,
    Notification,
    /// An answer to the server's own request.
    Response,
    /// GET of a session's stream.
    Stream,
    /// DELETE of a session.
    End,
}

/// `_meta` of the modern era.
pub const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}"#;

/// The capabilities in it.
pub const CAPABILITIES: &str =
    r#""io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;

/// A client's answer to what the server asked.
pub const RESPONSE: &str = r#"{"jsonrpc":"2.0","id":"<billing's request>","result":{"action":"decline"}}"#;

type Row = (&'static str, &'static str, Option<&'static str>);

const BOTH: [Row; 8] = [
    (
        "tools/call",
        r#""name":"list_invoices","arguments":{"limit":5,"text":"x"}"#,
        Some("list_invoices"),
    ),
    ("tools/list", "", None),
    ("prompts/list", "", None),
    (
        "prompts/get",
        r#""name":"greet","arguments":{"text":"x"}"#,
        Some("greet"),
    ),
    ("resources/list", "", None),
    ("resources/templates/list", "", None),
    ("resources/read", r#""uri":"docs://a""#, Some("docs://a")),
    (
        "completion/complete",
        r#""ref":{"type":"ref/prompt","name":"greet"},"argument":{"name":"text","value":"x"}"#,
        None,
    ),
];

const LEGACY: [Row; 5] = [
    (
        "initialize",
        r#""protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}"#,
        None,
    ),
    ("ping", "", None),
    ("resources/subscribe", r#""uri":"docs://a""#, Some("docs://a")),
    ("resources/unsubscribe", r#""uri":"docs://a""#, Some("docs://a")),
    ("logging/setLevel", r#""level":"info""#, None),
];

const NOTIFICATIONS: [Row; 3] = [
    ("notifications/initialized", "", None),
    ("notifications/cancelled", r#""requestId":7,"reason":"x""#, None),
    ("notifications/roots/list_changed", "", None),
];

const MODERN: [Row; 5] = [
    ("server/discover", "", None),
    (
        "subscriptions/listen",
        r#""notifications":{"toolsListChanged":true}"#,
        None,
    ),
    (
        "tasks/get",
        r#""taskId":"<billing's task>""#,
        Some("<billing's task>"),
    ),
    (
        "tasks/update",
        r#""taskId":"<billing's task>","inputResponses":{}"#,
        Some("<billing's task>"),
    ),
    (
        "tasks/cancel",
        r#""taskId":"<billing's task>""#,
        Some("<billing's task>"),
    ),
];

/// What names no method: it is of the legacy era and of a session.
const SESSION: [(Form, &str); 3] = [
    (Form::Response, "response"),
    (Form::Stream, "GET"),
    (Form::End, "DELETE"),
];

/// All of them.
pub fn all() -> Vec<Good> {
    let rows = |era, form, rows: &[Row]| {
        let make = |(method, params, name): &Row| Good {
            era,
            form,
            method,
            params,
            name: *name,
        };
        rows.iter().map(make).collect::<Vec<_>>()
    };
    let of_session = SESSION.map(|(form, method)| Good {
        era: Era::Legacy,
        form,
        method,
        params: "",
        name: None,
    });
    [
        rows(Era::Legacy, Form::Request, &BOTH),
        rows(Era::Legacy, Form::Request, &LEGACY),
        rows(Era::Legacy, Form::Notification, &NOTIFICATIONS),
        rows(Era::Modern, Form::Request, &BOTH),
        rows(Era::Modern, Form::Request, &MODERN),
        of_session.into(),
    ]
    .concat()
}

impl Good {
    pub fn is_modern(&self) -> bool {
        self.era == Era::Modern
    }

    /// What the method tables know of it; nothing of what names no method.
    pub fn entry(&self) -> Option<&'static Entry> {
        methods::lookup(self.era, Direction::ToServer, self.method)
    }

    /// The HTTP method.
    pub fn http_method(&self) -> &'static str {
        match self.form {
            Form::Stream => "GET",
            Form::End => "DELETE",
            _ => "POST",
        }
    }

    /// The status of a reply that passes.
    pub fn status(&self) -> StatusCode {
        match self.form {
            Form::Request | Form::Stream => StatusCode::OK,
            Form::Notification | Form::Response => StatusCode::ACCEPTED,
            Form::End => StatusCode::NO_CONTENT,
        }
    }

    /// `params` with these members, and `_meta` where the era wants it.
    pub fn params_of(&self, members: &str) -> String {
        let meta = if self.is_modern() { META } else { "" };
        let comma = if members.is_empty() || meta.is_empty() {
            ""
        } else {
            ","
        };
        format!("{{{members}{comma}{meta}}}")
    }

    /// Its id member.
    pub fn id(&self) -> &'static str {
        if self.form == Form::Request {
            r#""id":7,"#
        } else {
            ""
        }
    }

    /// Its body, with other members in `params`.
    pub fn with_params(&self, members: &str) -> String {
        body_of(
            self.id(),
            &format!("\"{}\"", self.method),
            &self.params_of(members),
        )
    }

    /// Its body.
    pub fn body(&self) -> String {
        match self.form {
            Form::Request | Form::Notification => self.with_params(self.params),
            Form::Response => RESPONSE.to_owned(),
            Form::Stream | Form::End => String::new(),
        }
    }

    /// Its protocol headers, and its session's where there is none without.
    pub fn headers(&self) -> Vec<(String, String)> {
        let version = if self.is_modern() {
            "2026-07-28"
        } else {
            "2025-11-25"
        };
        let mut headers = vec![("mcp-protocol-version".to_owned(), version.to_owned())];
        if self.entry().is_none() {
            headers.push(("mcp-session-id".into(), "<billing's session>".into()));
        }
        if self.is_modern() {
            headers.push(("mcp-method".into(), self.method.into()));
            headers.extend(self.name.map(|name| ("mcp-name".to_owned(), name.to_owned())));
        }
        headers
    }
}

/// A body with this id member, method text and parameters.
pub fn body_of(id: &str, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0",{id}"method":{method},"params":{params}}}"#)
}
