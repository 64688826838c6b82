//! Clients of other SDKs, unmodified: each lists, calls, reads and prompts through the sidecar. It must see what the policy
//! says, and so must the server. (rmcp's are in the tests of the sidecar and of `dev`.)

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{servers::Server, suite::Modules};

const ERAS: [&str; 2] = ["legacy", "modern"];
const TENANT_ID: &str = "5f0c2a11-8d0e-4a35-9d6b-2f0b7c1d0003";

/// What comes to the server of what each does: what is forced is in it, and what it is refused isn't.
fn permitted() -> [Value; 4] {
    let echo = json!(["tools/call", "echo_arguments", {"message": "hello", "tenant_id": TENANT_ID}]);
    let prompt = json!(["prompts/get", "test_prompt_with_arguments", {"arg1": "a", "arg2": "b"}]);
    let read = json!(["resources/read", "test://template/7/data", null]);
    [echo.clone(), echo, prompt, read]
}

/// What was wrong with what a client did.
pub struct Verdict {
    /// What it says itself.
    pub said: Option<String>,
    /// What else than what is permitted came to the server.
    pub came: Option<String>,
}

impl Verdict {
    /// All of it.
    pub fn wrong(self) -> Option<String> {
        let all: Vec<_> = [self.said, self.came].into_iter().flatten().collect();
        (!all.is_empty()).then(|| all.join("\n"))
    }
}

/// Runs all of them at the URL, behind which is the fixture; what each is called, and what became of it.
pub fn all(
    folder: &Path,
    modules: &Modules,
    python: &Path,
    url: &str,
    fixture: &Server,
) -> Result<Vec<(String, Verdict)>> {
    let mut outcomes = Vec::new();
    // The first line of TypeScript SDKs knows the legacy era alone.
    for (sdk, eras) in [("typescript-v1", &ERAS[..1]), ("typescript-v2", &ERAS[..])] {
        for era in eras {
            let mut command = modules.node()?;
            command
                .arg(folder.join("typescript.mjs"))
                .arg(&modules.0)
                .args([sdk, era, url]);
            let verdict = run(command, fixture, &permitted())?;
            outcomes.push((format!("{sdk} client, {era} era"), verdict));
        }
    }
    for era in ERAS {
        let mut command = Command::new(python);
        command.arg(folder.join("python.py")).args([era, url]);
        let verdict = run(command, fixture, &permitted())?;
        outcomes.push((format!("python client, {era} era"), verdict));
    }
    Ok(outcomes)
}

/// Runs a client, of whose calls these may come to the fixture.
pub fn run(mut command: Command, fixture: &Server, permitted: &[Value]) -> Result<Verdict> {
    let run = || command.output().with_context(|| format!("starting {command:?}"));
    let (output, came) = fixture.seeing(run)?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok(Verdict {
        said: (!output.status.success()).then(said),
        came: (came != permitted).then(|| format!("what came to the server: {}", json!(came))),
    })
}
