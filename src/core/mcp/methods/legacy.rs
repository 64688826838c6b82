//! Up to 2025-11-25. Its experimental tasks are left out: 2026-07-28 replaced them.

use super::{Entry, Method, Object, asks, notification, request, tells};

pub(super) const TABLE: &[Entry] = &[
    request(Method::ToolsCall, Object::Tool, &["name", "arguments", "_meta"]),
    request(Method::ToolsList, Object::List, &["cursor", "_meta"]),
    request(
        Method::Initialize,
        Object::Protocol,
        &["protocolVersion", "capabilities", "clientInfo", "_meta"],
    ),
    request(Method::Ping, Object::Protocol, &["_meta"]),
    request(Method::PromptsList, Object::List, &["cursor", "_meta"]),
    request(
        Method::PromptsGet,
        Object::Prompt,
        &["name", "arguments", "_meta"],
    ),
    request(Method::ResourcesList, Object::List, &["cursor", "_meta"]),
    request(Method::TemplatesList, Object::List, &["cursor", "_meta"]),
    request(Method::ResourcesRead, Object::Resource, &["uri", "_meta"]),
    request(Method::Subscribe, Object::Resource, &["uri", "_meta"]),
    request(Method::Unsubscribe, Object::Resource, &["uri", "_meta"]),
    request(
        Method::Complete,
        Object::Reference,
        &["ref", "argument", "context", "_meta"],
    ),
    request(Method::SetLevel, Object::Log, &["level", "_meta"]),
    notification(Method::Initialized, Object::Protocol, &["_meta"]),
    notification(
        Method::Cancelled,
        Object::Protocol,
        &["requestId", "reason", "_meta"],
    ),
    notification(Method::RootsChanged, Object::Roots, &["_meta"]),
    tells(
        Method::Progress,
        &["progressToken", "progress", "total", "message", "_meta"],
    ),
    tells(Method::LogMessage, &["level", "logger", "data", "_meta"]),
    tells(Method::ToolsChanged, &["_meta"]),
    tells(Method::PromptsChanged, &["_meta"]),
    tells(Method::ResourcesChanged, &["_meta"]),
    tells(Method::ResourceUpdated, &["uri", "title", "_meta"]),
    tells(Method::ElicitationComplete, &["elicitationId", "_meta"]),
    tells(Method::Cancelled, &["requestId", "reason", "_meta"]),
    asks(Method::Ping, &["_meta"]),
    asks(
        Method::CreateMessage,
        &[
            "messages",
            "modelPreferences",
            "systemPrompt",
            "includeContext",
            "temperature",
            "maxTokens",
            "stopSequences",
            "metadata",
            "tools",
            "toolChoice",
            "_meta",
        ],
    ),
    asks(
        Method::Elicit,
        &[
            "mode",
            "message",
            "requestedSchema",
            "elicitationId",
            "url",
            "_meta",
        ],
    ),
    asks(Method::RootsList, &["_meta"]),
];
