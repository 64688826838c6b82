//! Why something was refused: one stable code per reason, for audit records, metric labels and
//! documentation.
//!
//! A code never changes its meaning. What a client is told is decided in [`crate::refusal`] and
//! says less where saying more would tell a hidden tool from one that doesn't exist.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $code:literal, )+) => {
        /// Why a message, an answer or an entry of a list was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl Reason {
            /// Every reason, in the order of its documentation.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// The stable code: lower case, words joined by underscores.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $code ),+ }
            }

            /// What happened and what to do about it.
            pub const fn explanation(self) -> &'static str {
                match self { $( Self::$variant => concat!($($doc),+).trim_ascii() ),+ }
            }
        }
    };
}

reasons! {
    /// The body is larger than the limit. Send less, or raise the limit of the server.
    BodyTooLarge = "body_too_large",
    /// The body begins with a byte order mark, which RFC 8259 forbids. Send plain UTF-8.
    ByteOrderMark = "byte_order_mark",
    /// The body is not valid UTF-8. Encode it as UTF-8.
    InvalidUtf8 = "invalid_utf8",
    /// The body is not one well-formed JSON value, or a number in it is beyond every parser's range. Correct the JSON.
    MalformedJson = "malformed_json",
    /// Bytes follow the JSON value. Send one message per body.
    TrailingBytes = "trailing_bytes",
    /// The JSON is nested deeper than the limit. Flatten it.
    TooDeep = "too_deep",
    /// An object has the same key twice, and parsers differ on which one counts. Send each key once.
    DuplicateKey = "duplicate_key",
    /// An object, together with those that it is within, has more members than the limit. Send lists, or less.
    TooManyMembers = "too_many_members",
    /// A string has half of a surrogate pair. Escape whole characters.
    LoneSurrogate = "lone_surrogate",
    /// The body is a JSON-RPC batch. Send one message per request.
    Batch = "batch",
    /// The body is a JSON value but no JSON-RPC 2.0 message, or has members that JSON-RPC doesn't know. Send a request or notification as in the specification.
    InvalidEnvelope = "invalid_envelope",
    /// A key differs only in case from one that has a meaning, and parsers differ on whether it is that one. Use the exact key.
    CaseVariant = "case_variant",
    /// The id is neither a string nor a 64-bit integer, or is too long. Use a short string or an integer.
    InvalidId = "invalid_id",
    /// `params` or one of its members is missing, unknown to the method or of the wrong type. Send what the method defines.
    InvalidParams = "invalid_params",
    /// The client answered a request that the server never sent. Servers can't ask clients anything here; don't answer.
    ResponseUnexpected = "response_unexpected",
    /// A header of the protocol is repeated, is not visible ASCII, or is encoded wrongly. Send it once, encoded as in the specification.
    HeaderMalformed = "header_malformed",
    /// A header that mirrors the body is missing or says something else than the body. Derive the headers from the body.
    HeaderMismatch = "header_mismatch",
    /// The protocol version is not spoken here. Use one of the supported versions.
    UnsupportedVersion = "unsupported_version",
    /// `_meta` lacks what the protocol version requires of every request. Send protocolVersion and clientCapabilities.
    MetaMissing = "meta_missing",
    /// The method does not exist in this protocol version, or is not let through. Use what the server advertises.
    MethodUnknown = "method_unknown",
    /// A request was sent as a notification, or a notification as a request. Send an id with requests only.
    WrongForm = "wrong_form",
    /// The certificate names no agent of this server's policy. Add the agent to the tenant, or use its certificate.
    AgentUnknown = "agent_unknown",
    /// No tool of this name is in the policy. List it under the server's tools.
    ToolUnknown = "tool_unknown",
    /// The tool exists, but for none of the agent's roles. Give the agent one of the tool's roles.
    ToolNotGranted = "tool_not_granted",
    /// No prompt of this name is in the policy. List it under the server's prompts.
    PromptUnknown = "prompt_unknown",
    /// The prompt exists, but for none of the agent's roles. Give the agent one of the prompt's roles.
    PromptNotGranted = "prompt_not_granted",
    /// No resource rule of the agent's roles matches the URI. List the URI or its template under the server's resources.
    ResourceNotGranted = "resource_not_granted",
    /// The server or the agent was not granted this feature: logging, or the client's roots. Grant it under the server's clientFeatures.
    FeatureNotGranted = "feature_not_granted",
    /// The client doesn't declare the capability that the method needs. Declare it with the request.
    CapabilityMissing = "capability_missing",
    /// The cursor, request state, task or request id is none that was made for this agent. Begin again without it.
    HandleUnknown = "handle_unknown",
    /// A forced argument takes an attribute that the agent doesn't have. Set the attribute on the agent.
    AgentAttributeMissing = "agent_attribute_missing",
    /// A rule takes a claim of the person that the agent acts for, and there is no person, or not that claim. Present
    /// a token of a person that has it.
    ClaimMissing = "claim_missing",
    /// `arguments` is neither an object, null nor absent. Send an object.
    ArgumentsNotObject = "arguments_not_object",
    /// An argument is not within the bounds of its rule. Correct the argument.
    ArgumentOutOfBounds = "argument_out_of_bounds",
    /// An argument is there that the policy forbids. Leave it out.
    ArgumentForbidden = "argument_forbidden",
    /// The arguments don't fit the tool's own input schema. Correct them.
    ArgumentInvalid = "argument_invalid",
    /// The tool's own input schema doesn't allow the value that the policy forces. Correct the policy, or the tool.
    ForcedArgumentInvalid = "forced_argument_invalid",
    /// The rewritten message did not read back as the message that was decided. This is a fault of Bulkhead; report it.
    RewriteInconsistent = "rewrite_inconsistent",
    /// The tool's schema mentions a forced or forbidden argument where it can't be taken out. Simplify the schema, or don't force or forbid that argument.
    ArgumentEntangled = "argument_entangled",
    /// The tool's schema doesn't declare a forced argument, so setting it might change nothing. Correct the name in the policy, or declare it in the tool.
    ForcedArgumentUndeclared = "forced_argument_undeclared",
    /// The tool's input schema can't be checked: it is too large or no valid one, refers outside of itself, or has a pattern that isn't linear. Simplify it in the server.
    SchemaUnusable = "schema_unusable",
    /// The definition has characters that people don't see, or that reorder text. Take them out in the server.
    HiddenCharacters = "hidden_characters",
    /// The definition is another one than the server showed first. Review it, and accept it in the policy; or mend the server.
    DefinitionChanged = "definition_changed",
    /// The definition is none that the policy accepts. Review it, and accept it in the policy; or mend the server.
    DefinitionNotAccepted = "definition_not_accepted",
    /// The tool's `x-mcp-header` annotations are invalid. Correct them in the server.
    InvalidMirror = "invalid_mirror",
    /// An entry of the server's tool list is malformed. Correct the server.
    ToolMalformed = "tool_malformed",
    /// The server lists two tools of the same name. Rename one.
    ToolDuplicate = "tool_duplicate",
    /// An entry of the server's list of prompts, resources or templates is malformed. Correct the server.
    EntryMalformed = "entry_malformed",
    /// The server lists two prompts of the same name, or two resources of the same URI. Keep one.
    EntryDuplicate = "entry_duplicate",
    /// The server's answer is no well-formed JSON-RPC message, or not the result that the method defines. Correct the server.
    AnswerMalformed = "answer_malformed",
    /// The server answered another request than the one that was asked. Correct the server.
    AnswerMismatch = "answer_mismatch",
    /// The server answered with a protocol version that is not spoken here. Update the server.
    AnswerVersion = "answer_version",
    /// The server's result is of a type that is not let through, or not in answer to this method.
    AnswerType = "answer_type",
    /// A handle in the server's answer (a cursor, request state or task id) is missing, empty or too long. Correct the server.
    AnswerHandle = "answer_handle",
    /// The server asked for a feature of the client that it was not granted. Grant it under the server's clientFeatures.
    AnswerFeature = "answer_feature",
    /// The server answered with contents of a resource that the agent may not read.
    AnswerResource = "answer_resource",
    /// The tool's results are filtered by owner, and the answer has no records where its rule says, or is prose (a question to the user). Correct the rule, or the server.
    AnswerUnfiltered = "answer_unfiltered",
    /// The answer holds more records than the tool's rule allows. Ask for fewer.
    AnswerTooManyRecords = "answer_too_many_records",
    /// The answer is longer than the tool's rule allows. Ask for less.
    AnswerTooLong = "answer_too_long",
    /// The answer holds records that aren't the agent's own. The tool's rule only reports it: enforce it when the server is right.
    RecordsForeign = "records_foreign",
    /// The server sent the client a request or notification that is not let through.
    ServerMessageDenied = "server_message_denied",
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_fit_a_metric_label() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for code in codes {
            assert!(
                code.bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
                "{code}"
            );
        }
    }

    #[test]
    fn every_reason_says_something() {
        for reason in Reason::ALL {
            assert!(reason.explanation().ends_with('.'), "{reason}");
        }
    }
}
