//! The methods that pass, one table per era. What is not in the table is refused.

use crate::mcp::version::Era;

/// A method that passes in some era.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `initialize`
    Initialize,
    /// `notifications/initialized`
    Initialized,
    /// `notifications/cancelled`
    Cancelled,
    /// `notifications/progress`
    Progress,
    /// `ping`
    Ping,
    /// `server/discover`
    Discover,
    /// `tools/list`
    ToolsList,
    /// `tools/call`
    ToolsCall,
}

/// Who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The client.
    ToServer,
    /// The server.
    ToClient,
}

/// Whether an answer is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With an id.
    Request,
    /// Without one.
    Notification,
}

/// What is known of a method.
#[derive(Debug)]
pub struct Entry {
    /// The method.
    pub method: Method,
    /// Its name in the envelope.
    pub name: &'static str,
    /// Who sends it.
    pub direction: Direction,
    /// Request or notification.
    pub form: Form,
    /// The members of `params` that pass. Others are refused, because a server may know what they
    /// mean: `task` and `requestState` make or present handles that nothing seals yet.
    pub params: &'static [&'static str],
    /// The member of `params` that names what is used, mirrored in `Mcp-Name`.
    pub names: Option<&'static str>,
}

/// Where the rule of a method that needs no grant is found: `methods[NAME]`.
pub fn rule(entry: &Entry) -> String {
    format!("methods[{}]", entry.name)
}

const TOOLS_LIST: Entry = Entry {
    method: Method::ToolsList,
    name: "tools/list",
    direction: Direction::ToServer,
    form: Form::Request,
    params: &["cursor", "_meta"],
    names: None,
};

const TOOLS_CALL: Entry = Entry {
    method: Method::ToolsCall,
    name: "tools/call",
    direction: Direction::ToServer,
    form: Form::Request,
    params: &["name", "arguments", "_meta"],
    names: Some("name"),
};

const PROGRESS: Entry = Entry {
    method: Method::Progress,
    name: "notifications/progress",
    direction: Direction::ToClient,
    form: Form::Notification,
    params: &["progressToken", "progress", "total", "message", "_meta"],
    names: None,
};

/// Up to 2025-11-25.
pub const LEGACY: &[Entry] = &[
    TOOLS_CALL,
    TOOLS_LIST,
    Entry {
        method: Method::Initialize,
        name: "initialize",
        direction: Direction::ToServer,
        form: Form::Request,
        params: &["protocolVersion", "capabilities", "clientInfo", "_meta"],
        names: None,
    },
    Entry {
        method: Method::Initialized,
        name: "notifications/initialized",
        direction: Direction::ToServer,
        form: Form::Notification,
        params: &["_meta"],
        names: None,
    },
    Entry {
        method: Method::Cancelled,
        name: "notifications/cancelled",
        direction: Direction::ToServer,
        form: Form::Notification,
        params: &["requestId", "reason", "_meta"],
        names: None,
    },
    Entry {
        method: Method::Ping,
        name: "ping",
        direction: Direction::ToServer,
        form: Form::Request,
        params: &["_meta"],
        names: None,
    },
    PROGRESS,
];

/// 2026-07-28. Cancellation is the closing of the stream.
pub const MODERN: &[Entry] = &[
    TOOLS_CALL,
    TOOLS_LIST,
    Entry {
        method: Method::Discover,
        name: "server/discover",
        direction: Direction::ToServer,
        form: Form::Request,
        params: &["_meta"],
        names: None,
    },
    PROGRESS,
];

/// The entry of a method in an era, or `None`: refused.
pub fn lookup(era: Era, direction: Direction, name: &str) -> Option<&'static Entry> {
    let table = match era {
        Era::Legacy => LEGACY,
        Era::Modern => MODERN,
    };
    table
        .iter()
        .find(|entry| entry.direction == direction && entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_no_table_does_not_exist() {
        let cases = [
            (Era::Legacy, "tools/call", true),
            (Era::Modern, "tools/call", true),
            (Era::Legacy, "initialize", true),
            (Era::Modern, "initialize", false),
            (Era::Modern, "ping", false),
            (Era::Legacy, "server/discover", false),
            (Era::Legacy, "Tools/call", false),
            (Era::Legacy, "tools/call ", false),
            (Era::Legacy, "resources/read", false),
            (Era::Legacy, "completion/complete", false),
            (Era::Modern, "subscriptions/listen", false),
            (Era::Modern, "tasks/get", false),
            (Era::Legacy, "notifications/progress", false),
            (Era::Legacy, "", false),
        ];
        for (era, name, exists) in cases {
            assert_eq!(
                lookup(era, Direction::ToServer, name).is_some(),
                exists,
                "{era:?} {name}"
            );
        }
    }

    #[test]
    fn servers_may_report_progress_and_nothing_else() {
        for era in [Era::Legacy, Era::Modern] {
            assert!(lookup(era, Direction::ToClient, "notifications/progress").is_some());
            for name in [
                "sampling/createMessage",
                "elicitation/create",
                "ping",
                "notifications/message",
            ] {
                assert!(lookup(era, Direction::ToClient, name).is_none(), "{name}");
            }
        }
    }
}
