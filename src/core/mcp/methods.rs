//! The methods that pass, one table per era and direction. What is in no table is refused.

mod legacy;
mod modern;

use std::fmt;

use crate::mcp::version::Era;

macro_rules! methods {
    ($( $variant:ident = $name:literal, )+) => {
        /// A method that passes in some era.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Method {
            $( #[doc = concat!("`", $name, "`")] $variant, )+
        }

        impl Method {
            /// Every method that passes in some era.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// Its name in the envelope.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name ),+ }
            }
        }
    };
}

methods! {
    Initialize = "initialize",
    Discover = "server/discover",
    Ping = "ping",
    ToolsList = "tools/list",
    ToolsCall = "tools/call",
    PromptsList = "prompts/list",
    PromptsGet = "prompts/get",
    ResourcesList = "resources/list",
    TemplatesList = "resources/templates/list",
    ResourcesRead = "resources/read",
    Subscribe = "resources/subscribe",
    Unsubscribe = "resources/unsubscribe",
    Complete = "completion/complete",
    SetLevel = "logging/setLevel",
    Listen = "subscriptions/listen",
    TasksGet = "tasks/get",
    TasksUpdate = "tasks/update",
    TasksCancel = "tasks/cancel",
    Initialized = "notifications/initialized",
    Cancelled = "notifications/cancelled",
    Progress = "notifications/progress",
    RootsChanged = "notifications/roots/list_changed",
    ToolsChanged = "notifications/tools/list_changed",
    PromptsChanged = "notifications/prompts/list_changed",
    ResourcesChanged = "notifications/resources/list_changed",
    ResourceUpdated = "notifications/resources/updated",
    LogMessage = "notifications/message",
    ElicitationComplete = "notifications/elicitation/complete",
    Acknowledged = "notifications/subscriptions/acknowledged",
    CreateMessage = "sampling/createMessage",
    Elicit = "elicitation/create",
    RootsList = "roots/list",
}

impl Method {
    /// The method of this name, in whatever era and direction.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|method| method.name() == name)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
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

/// What a client's message is about, and so which part of the policy decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// The protocol itself, which needs no grant.
    Protocol,
    /// A list: filtered on its way back.
    List,
    /// The tool that `params.name` names.
    Tool,
    /// The prompt that `params.name` names.
    Prompt,
    /// The resource that `params.uri` names.
    Resource,
    /// The prompt or template that `params.ref` names.
    Reference,
    /// The lists and resources that `params.notifications` names.
    Subscription,
    /// The task whose sealed id `params.taskId` is.
    Task,
    /// The server's log.
    Log,
    /// The client's roots.
    Roots,
}

/// What is known of a method.
#[derive(Debug)]
pub struct Entry {
    /// The method.
    pub method: Method,
    /// Who sends it.
    pub direction: Direction,
    /// Request or notification.
    pub form: Form,
    /// The members of `params` that pass. Others are refused, because a server may know what they
    /// mean: in 2025-11-25 `task` made a handle that nothing here seals.
    pub params: &'static [&'static str],
    /// What it is about.
    pub object: Object,
}

impl Entry {
    /// The member of `params` that names what is used, which `Mcp-Name` mirrors.
    pub const fn names(&self) -> Option<&'static str> {
        match self.object {
            Object::Tool | Object::Prompt => Some("name"),
            Object::Resource => Some("uri"),
            Object::Task => Some("taskId"),
            _ => None,
        }
    }

    /// Where the rule of a method that needs no grant is found: `methods[NAME]`.
    pub fn rule(&self) -> String {
        format!("methods[{}]", self.method)
    }
}

/// A request of the client.
const fn request(method: Method, object: Object, params: &'static [&'static str]) -> Entry {
    Entry {
        method,
        direction: Direction::ToServer,
        form: Form::Request,
        params,
        object,
    }
}

/// A notification of the client.
const fn notification(method: Method, object: Object, params: &'static [&'static str]) -> Entry {
    Entry {
        form: Form::Notification,
        ..request(method, object, params)
    }
}

/// A request of the server.
const fn asks(method: Method, params: &'static [&'static str]) -> Entry {
    Entry {
        direction: Direction::ToClient,
        ..request(method, Object::Protocol, params)
    }
}

/// A notification of the server.
const fn tells(method: Method, params: &'static [&'static str]) -> Entry {
    Entry {
        form: Form::Notification,
        ..asks(method, params)
    }
}

/// The entry of a method in an era, or `None`: refused.
pub fn lookup(era: Era, direction: Direction, name: &str) -> Option<&'static Entry> {
    let table = match era {
        Era::Legacy => legacy::TABLE,
        Era::Modern => modern::TABLE,
    };
    table
        .iter()
        .find(|entry| entry.direction == direction && entry.method.name() == name)
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
            (Era::Legacy, "resources/read", true),
            (Era::Modern, "resources/subscribe", false),
            (Era::Legacy, "subscriptions/listen", false),
            (Era::Modern, "subscriptions/listen", true),
            (Era::Legacy, "tasks/get", false),
            (Era::Modern, "tasks/get", true),
            (Era::Modern, "tasks/list", false),
            (Era::Modern, "tasks/result", false),
            (Era::Modern, "logging/setLevel", false),
            (Era::Legacy, "notifications/message", false),
            (Era::Legacy, "sampling/createMessage", false),
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
    fn servers_ask_clients_in_the_legacy_era_only() {
        for name in [
            "sampling/createMessage",
            "elicitation/create",
            "roots/list",
            "ping",
        ] {
            assert!(lookup(Era::Legacy, Direction::ToClient, name).is_some(), "{name}");
            assert!(lookup(Era::Modern, Direction::ToClient, name).is_none(), "{name}");
        }
        for name in [
            "tools/call",
            "notifications/initialized",
            "notifications/roots/list_changed",
        ] {
            for era in [Era::Legacy, Era::Modern] {
                assert!(lookup(era, Direction::ToClient, name).is_none(), "{name}");
            }
        }
    }

    #[test]
    fn no_table_has_a_method_twice_and_no_name_is_shared() {
        for table in [legacy::TABLE, modern::TABLE] {
            for (index, entry) in table.iter().enumerate() {
                let again = table[..index]
                    .iter()
                    .any(|other| other.method == entry.method && other.direction == entry.direction);
                assert!(!again, "{}", entry.method);
            }
        }
        for method in Method::ALL {
            assert_eq!(Method::parse(method.name()), Some(*method));
        }
    }
}
