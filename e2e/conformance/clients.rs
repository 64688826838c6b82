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

/// Runs all of them at the URL, behind which is the fixture; what each is called, and what was wrong.
pub fn all(
    folder: &Path,
    modules: &Modules,
    python: &Path,
    url: &str,
    fixture: &Server,
) -> Result<Vec<(String, Option<String>)>> {
    let mut outcomes = Vec::new();
    // The first line of TypeScript SDKs knows the legacy era alone.
    for (sdk, eras) in [("typescript-v1", &ERAS[..1]), ("typescript-v2", &ERAS[..])] {
        for era in eras {
            let mut command = modules.node()?;
            command
                .arg(folder.join("typescript.mjs"))
                .arg(&modules.0)
                .args([sdk, era, url]);
            let wrong = wrong(command, fixture, &permitted())?;
            outcomes.push((format!("{sdk} client, {era} era"), wrong));
        }
    }
    for era in ERAS {
        let mut command = Command::new(python);
        command.arg(folder.join("python.py")).args([era, url]);
        let wrong = wrong(command, fixture, &permitted())?;
        outcomes.push((format!("python client, {era} era"), wrong));
    }
    Ok(outcomes)
}

/// What a client said that went wrong, or what else than this came to the fixture; none: nothing did.
pub fn wrong(mut command: Command, fixture: &Server, permitted: &[Value]) -> Result<Option<String>> {
    let run = || command.output().with_context(|| format!("starting {command:?}"));
    let (output, came) = fixture.seeing(run)?;
    if !output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok((came != permitted).then(|| format!("what came to the server: {}", json!(came))))
}
