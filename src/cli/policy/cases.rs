//! Files of cases: what they may say (`docs/policy-tests.md`), and how they are found and read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::offline::outcome::{Fate, Verdict};

/// A file of cases about one tenant.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaseFile {
    /// The tenant's file, from the folder of this one.
    pub tenant: PathBuf,
    /// The server of cases that name none. May be left out when the tenant has one.
    pub server: Option<String>,
    /// The agent of cases that name none. May be left out when the tenant has one.
    pub agent: Option<String>,
    /// The cases, at least one.
    pub cases: Vec<Case>,
}

/// A request, and what is expected of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// What it shows; once in a file.
    pub name: String,
    /// The server that is called.
    pub server: Option<String>,
    /// The agent that calls.
    pub agent: Option<String>,
    /// The claims of the token of the person that the agent acts for. `iss` may be left out when the tenant has one issuer.
    pub person: Option<Value>,
    /// The client's message.
    pub request: Given,
    /// Headers in place of those that are made from the message.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The server's message.
    pub reply: Option<Given>,
    /// What is expected.
    pub expect: Expected,
}

/// A message: an object, of which `jsonrpc` and `id` may be left out, or a text, which is taken byte for byte.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Given(Value);

/// What is expected. What isn't said is not compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expected {
    /// Whether the message goes upstream.
    pub decision: Verdict,
    /// The code of the reason why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The part of the policy that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The roles of the agent for which the tool exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<BTreeSet<String>>,
    /// Forced arguments for which the caller gave another value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<BTreeSet<String>>,
    /// Rules that would have refused it, and only report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<BTreeSet<String>>,
    /// All arguments that go upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// What becomes of the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<ExpectedAnswer>,
}

/// What is expected to become of a reply. What isn't said is not compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedAnswer {
    /// What becomes of it.
    pub outcome: Fate,
    /// Why it doesn't pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The code of the reason for which a rule that only reports would have refused it, or taken records out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<String>,
    /// The names in the list that the client gets, in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// Tools that are taken out of the list because something is wrong with them, and the reason's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<BTreeMap<String, String>>,
    /// Records of a result that the ownership filter leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_kept: Option<usize>,
    /// Records that it takes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_removed: Option<usize>,
    /// The whole message that the client gets; `jsonrpc` and `id` may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Value>,
}

impl CaseFile {
    /// Reads a file.
    pub fn load(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).context("reading it")?;
        Self::parse(&text)
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self> {
        let cases: Self = serde_saphyr::from_str(text).context("not a file of cases")?;
        if cases.cases.is_empty() {
            bail!("it has no cases");
        }
        let mut names = BTreeSet::new();
        for Case {
            name, reply, expect, ..
        } in &cases.cases
        {
            if !names.insert(name) {
                bail!("two cases have the name {name:?}");
            }
            match (reply, &expect.answer) {
                (Some(_), None) => {
                    bail!("case {name:?} has a reply, and expects nothing of it: add expect.answer")
                }
                (None, Some(_)) => bail!("case {name:?} expects an answer, and has no reply"),
                _ => {}
            }
        }
        Ok(cases)
    }
}

impl Given {
    /// The bytes of a client's message.
    pub fn request(&self) -> Bytes {
        let mut message = self.0.clone();
        let method = message.get("method").and_then(Value::as_str).unwrap_or_default();
        let id = (!method.starts_with("notifications/")).then(|| Value::from(1));
        fill(&mut message, id);
        bytes(&message)
    }

    /// The bytes of a server's message to a request.
    pub fn reply(&self, request: &Bytes) -> Bytes {
        let mut message = self.0.clone();
        complete(&mut message, request);
        bytes(&message)
    }
}

/// Fills in what a message of the server to a request can be left to have.
pub fn complete(message: &mut Value, request: &Bytes) {
    let request: Option<Value> = serde_json::from_slice(request).ok();
    let id = if message.get("method").is_none() {
        request
    } else {
        None
    };
    fill(
        message,
        id.and_then(|mut request| request.get_mut("id").map(Value::take)),
    );
}

fn fill(message: &mut Value, id: Option<Value>) {
    if let Some(message) = message.as_object_mut() {
        message.entry("jsonrpc").or_insert_with(|| "2.0".into());
        if let Some(id) = id {
            message.entry("id").or_insert(id);
        }
    }
}

fn bytes(message: &Value) -> Bytes {
    match message {
        Value::String(text) => text.clone().into(),
        message => message.to_string().into(),
    }
}

/// The files of cases at a path, in order.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("reading {}", path.display());
    if !fs::metadata(path).with_context(context)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(context)? {
        let entry = entry.with_context(context)?;
        let path = entry.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        // The entry's own type: a link to a folder isn't gone into, so there is no way round in circles.
        if entry.file_type().with_context(context)?.is_dir() {
            files.extend(self::files(&path)?);
        } else if matches!(extension, Some("yaml" | "yml")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
