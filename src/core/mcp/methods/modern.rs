//! 2026-07-28, with its extension `io.modelcontextprotocol/tasks`. Cancellation is the closing of
//! the stream, and servers ask clients inside results (SEP-2322), not by requests.

use super::{Entry, Method, Object, request, tells};

pub(super) const TABLE: &[Entry] = &[
    request(
        Method::ToolsCall,
        Object::Tool,
        &["name", "arguments", "inputResponses", "requestState", "_meta"],
    ),
    request(Method::ToolsList, Object::List, &["cursor", "_meta"]),
    request(Method::Discover, Object::Protocol, &["_meta"]),
    request(Method::PromptsList, Object::List, &["cursor", "_meta"]),
    request(
        Method::PromptsGet,
        Object::Prompt,
        &["name", "arguments", "inputResponses", "requestState", "_meta"],
    ),
    request(Method::ResourcesList, Object::List, &["cursor", "_meta"]),
    request(Method::TemplatesList, Object::List, &["cursor", "_meta"]),
    request(
        Method::ResourcesRead,
        Object::Resource,
        &["uri", "inputResponses", "requestState", "_meta"],
    ),
    request(
        Method::Complete,
        Object::Reference,
        &["ref", "argument", "context", "_meta"],
    ),
    request(Method::Listen, Object::Subscription, &["notifications", "_meta"]),
    request(Method::TasksGet, Object::Task, &["taskId", "_meta"]),
    request(
        Method::TasksUpdate,
        Object::Task,
        &["taskId", "inputResponses", "_meta"],
    ),
    request(Method::TasksCancel, Object::Task, &["taskId", "_meta"]),
    tells(
        Method::Progress,
        &["progressToken", "progress", "total", "message", "_meta"],
    ),
    tells(Method::LogMessage, &["level", "logger", "data", "_meta"]),
    tells(Method::Acknowledged, &["notifications", "_meta"]),
    tells(Method::ToolsChanged, &["_meta"]),
    tells(Method::PromptsChanged, &["_meta"]),
    tells(Method::ResourcesChanged, &["_meta"]),
    tells(Method::ResourceUpdated, &["uri", "title", "_meta"]),
];
