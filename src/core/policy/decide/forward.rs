//! The permit of a final message: its bytes, the headers that mirror it, and what may be answered.

use std::borrow::Cow;

use bytes::Bytes;

use super::{Target, examine::Subject, subscription};
use crate::{
    credential, json,
    mcp::{
        self, Era, Inventory, Message, MirroredHeaders, Params, ProtocolVersion,
        envelope::Id,
        methods::Method,
        mirrors::{self, Mirror},
    },
    policy::{
        compile::Grant,
        permit::{Expected, Forward, Permitted},
    },
    reason::Reason,
    refusal::Refusal,
};

/// The mirrored arguments of the tool that is called, as far as its server has listed it.
pub(super) fn mirrors<'i>(tool: Option<&Grant>, inventory: &'i Inventory) -> Option<&'i [Mirror]> {
    let rule = &tool?.rule;
    let facts = inventory.tool(&rule.name, &rule.accepted)?.ok()?;
    Some(&facts.mirrors)
}

/// The permit of a final message.
pub(super) fn permit(
    subject: &Subject<'_, '_>,
    tool: Option<&Grant>,
    target: Option<&Target>,
    client: &MirroredHeaders<'_>,
    mirrors: Option<&[Mirror]>,
) -> Result<Permitted<Forward>, Refusal> {
    let mut headers = version_header(client, subject.version);
    if subject.version.era() == Era::Modern {
        headers.push(("Mcp-Method".into(), subject.entry.method.name().to_owned()));
        if let Some(name) = subject.name.as_deref() {
            headers.push(("Mcp-Name".into(), mcp::headers::encode(name).into_owned()));
        }
        param_headers(subject, tool, client, mirrors, &mut headers);
    }
    let expected = match subject.message {
        Message::Request(request) => Some(Expected {
            id: request.id.raw().to_owned(),
            method: subject.entry.method,
            version: subject.version,
            progress_token: progress_token(request.params.as_ref())?,
            name: target.map(|target| target.name().to_owned()),
            listens: subscription::listens(subject),
        }),
        _ => None,
    };
    Ok(Permitted::new(Forward {
        body: subject.message.body().clone(),
        headers,
        version: subject.version,
        method: Some(subject.entry.method),
        expected,
        arguments_digest: (subject.entry.method == Method::ToolsCall)
            .then(|| credential::digest(subject.get("arguments").filter(|raw| *raw != "null")))
            .flatten(),
    }))
}

/// The permit of a client's answer to the server.
pub(super) fn response(
    body: Bytes,
    version: ProtocolVersion,
    client: &MirroredHeaders<'_>,
) -> Permitted<Forward> {
    Permitted::new(Forward {
        body,
        headers: version_header(client, version),
        version,
        method: None,
        expected: None,
        arguments_digest: None,
    })
}

type Headers = Vec<(Cow<'static, str>, String)>;

fn version_header(client: &MirroredHeaders<'_>, version: ProtocolVersion) -> Headers {
    let mut headers = Vec::with_capacity(3);
    if client.version.is_some() {
        headers.push(("MCP-Protocol-Version".into(), version.as_str().to_owned()));
    }
    headers
}

/// The `Mcp-Param-*` headers. Those of known annotations are written from the final arguments.
/// Others pass as they came, as SEP-2243 asks of intermediaries, unless the tool has rules about
/// arguments: then a header might say what the caller was denied to say. In particular,
/// while the server hasn't listed the tool yet, such a call goes without them, and a server that
/// needs them refuses it.
fn param_headers(
    subject: &Subject<'_, '_>,
    tool: Option<&Grant>,
    client: &MirroredHeaders<'_>,
    mirrors: Option<&[Mirror]>,
    headers: &mut Headers,
) {
    let known = mirrors.unwrap_or_default();
    if tool.is_some_and(|grant| !grant.rule.has_arguments()) {
        let unknown = client.params.iter().filter(|(suffix, _)| {
            !known
                .iter()
                .any(|mirror| mirror.header.eq_ignore_ascii_case(suffix))
        });
        headers.extend(
            unknown.map(|(suffix, value)| (format!("Mcp-Param-{suffix}").into(), (*value).to_owned())),
        );
    }
    let written = mirrors::headers_of(known, subject.get("arguments"));
    headers.extend(written.into_iter().map(|(name, value)| (Cow::Owned(name), value)));
}

/// The raw progress token of a request. It is kept with the call and repeated in its handles, so it is bounded as ids are.
fn progress_token(params: Option<&Params<'_>>) -> Result<Option<String>, Refusal> {
    let meta = params
        .and_then(|params| params.get("_meta"))
        .and_then(json::members);
    let Some(raw) = meta.and_then(|meta| json::get(&meta, "progressToken")) else {
        return Ok(None);
    };
    match Id::read(raw) {
        Ok(_) => Ok(Some(raw.to_owned())),
        Err(_) => Err(Refusal::new(
            Reason::InvalidParams,
            "params._meta.progressToken is neither a short string nor an integer",
        )),
    }
}
