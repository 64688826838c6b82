//! The families: ways to spoil a good message, each with the reason that must refuse it.

#[path = "families/arguments.rs"]
mod arguments;
#[path = "families/handles.rs"]
mod handles;
#[path = "families/json.rs"]
mod json;
#[path = "families/left_out.rs"]
mod left_out;
#[path = "families/protocol.rs"]
mod protocol;
#[path = "families/sessions.rs"]
mod sessions;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    good::{self, Form, Good},
    why::Why,
};

/// A request, and what must become of it.
#[derive(Clone, Debug)]
pub struct Case {
    pub family: &'static str,
    pub about: String,
    pub agent: &'static str,
    pub http_method: &'static str,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub fate: Fate,
}

/// What must become of a request.
#[derive(Clone, Debug)]
pub enum Fate {
    Refused(Why),
    Passes(Passes),
}

/// How a request passes.
#[derive(Clone, Debug)]
pub struct Passes {
    /// The body that the server sees, but for what is forced on every call.
    pub body: String,
    /// Headers that it sees, or doesn't.
    pub headers: Vec<(&'static str, Option<String>)>,
    /// What the record of it says besides.
    pub record: Value,
}

impl Case {
    /// The control: the message as it is. The server sees it with its own handles in place.
    pub fn good(good: &Good) -> Self {
        Self::passes(good, "control", "", good.body(), good.body())
    }

    fn passes(
        good: &Good,
        family: &'static str,
        about: &str,
        body: impl Into<Vec<u8>>,
        seen: impl Into<String>,
    ) -> Self {
        let mut headers = vec![("cookie", None), ("mcp-method", None)];
        if good.is_modern() {
            headers[1].1 = Some(good.method.to_owned());
        }
        Self {
            family,
            about: about.into(),
            agent: "billing",
            http_method: good.http_method(),
            headers: good.headers(),
            body: body.into(),
            fate: Fate::Passes(Passes {
                body: seen.into(),
                headers,
                record: json!({}),
            }),
        }
    }

    fn body(
        good: &Good,
        family: &'static str,
        about: &str,
        body: impl Into<Vec<u8>>,
        why: impl Into<Why>,
    ) -> Self {
        Self {
            family,
            about: about.into(),
            body: body.into(),
            fate: Fate::Refused(why.into()),
            ..Self::good(good)
        }
    }

    fn headers(
        good: &Good,
        family: &'static str,
        about: &str,
        headers: &[(&str, &str)],
        why: impl Into<Why>,
    ) -> Self {
        let mut case = Self::body(good, family, about, good.body(), why);
        case.headers.clear();
        case.with(headers)
    }

    /// The same with more headers.
    fn with(mut self, headers: &[(&str, &str)]) -> Self {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.headers.extend(headers);
        self
    }

    /// The same with another value of a header.
    fn instead(mut self, header: &str, value: &str) -> Self {
        self.headers.retain(|(name, _)| name != header);
        self.with(&[(header, value)])
    }

    /// The same of another agent.
    fn of(mut self, agent: &'static str) -> Self {
        self.agent = agent;
        self
    }

    /// The same, and the server sees this header, or none.
    fn seeing(mut self, header: &'static str, value: Option<&str>) -> Self {
        if let Fate::Passes(passes) = &mut self.fate {
            passes.headers.push((header, value.map(str::to_owned)));
        }
        self
    }

    /// The same, and this is on record.
    fn recording(mut self, record: Value) -> Self {
        if let Fate::Passes(passes) = &mut self.fate {
            passes.record = record;
        }
        self
    }
}

/// Every family, of one good message.
pub fn of(good: &Good) -> Vec<Case> {
    let common = [handles::of(good), protocol::edge(good)];
    let own = match good.form {
        Form::Request | Form::Notification => vec![
            json::batches(good),
            json::encodings(good),
            json::duplicates(good),
            json::spellings(good),
            json::forms(good),
            json::ids(good),
            json::envelopes(good),
            json::parameters(good),
            arguments::objects(good),
            arguments::duplicates(good),
            arguments::spellings(good),
            arguments::bounds(good),
            arguments::hidden(good),
            arguments::mirrors(good),
            left_out::parameters(good),
            left_out::resources(good),
            protocol::hidden(good),
            protocol::mirrors(good),
            protocol::eras(good),
        ],
        Form::Response => vec![
            json::batches(good),
            json::encodings(good),
            sessions::responses(good),
        ],
        Form::Stream | Form::End => vec![sessions::http(good)],
    };
    common.into_iter().chain(own).flatten().collect()
}

/// The methods that name what not everybody has.
const NAMING: [&str; 6] = [
    "tools/call",
    "prompts/get",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
];

/// The methods of the modern era that take no handle.
const WITHOUT_HANDLES: [&str; 3] = ["server/discover", "subscriptions/listen", "completion/complete"];

type Of = fn(&Good) -> bool;

/// Each family, and of which good messages it has cases.
const FAMILIES: [(&str, Of); 21] = [
    ("HTTP", |_| true),
    ("batch", is_posted),
    ("encoding", is_posted),
    ("duplicate key", is_posted),
    ("case variant", is_posted),
    ("envelope", is_posted),
    ("form", has_method),
    ("params", has_method),
    ("stray parameter", has_method),
    ("mirrored header", has_method),
    ("id", |good| matches!(good.form, Form::Request | Form::Response)),
    ("era", |good| good.method != "initialize"),
    ("handle", |good| {
        good.method != "initialize" && !(good.is_modern() && WITHOUT_HANDLES.contains(&good.method))
    }),
    ("hidden", |good| NAMING.contains(&good.method)),
    ("listened resource", |good| good.method == "subscriptions/listen"),
    ("arguments", has_arguments),
    ("duplicate argument", has_arguments),
    ("argument's case", is_call),
    ("bounds", is_call),
    ("hidden argument", is_call),
    ("mirrored argument", |good| is_call(good) && good.is_modern()),
];

fn is_posted(good: &Good) -> bool {
    good.http_method() == "POST"
}

fn has_method(good: &Good) -> bool {
    matches!(good.form, Form::Request | Form::Notification)
}

fn has_arguments(good: &Good) -> bool {
    matches!(good.method, "tools/call" | "prompts/get")
}

fn is_call(good: &Good) -> bool {
    good.method == "tools/call"
}

/// A family without cases fails nothing, and a total doesn't tell.
#[test]
fn every_family_has_cases_of_each_message_that_it_is_about() {
    for good in good::all() {
        let has: BTreeSet<_> = of(&good).iter().map(|case| case.family).collect();
        let about = FAMILIES.iter().filter(|(_, is_of)| is_of(&good));
        let must_have = about.map(|(family, _)| *family).collect();
        assert_eq!(has, must_have, "{:?} {}", good.era, good.method);
    }
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
    good.entry()?.names()
}
