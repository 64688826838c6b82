//! Clients of other SDKs, unmodified: each lists, calls, reads and prompts through the sidecar, and must see what the
//! policy says. (rmcp's are in the tests of the sidecar and of `dev`.)

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::suite::Modules;

const ERAS: [&str; 2] = ["legacy", "modern"];

/// Runs all of them; what each is called, and what it found wrong.
pub fn all(
    folder: &Path,
    modules: &Modules,
    python: &Path,
    url: &str,
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
            outcomes.push((format!("{sdk} client, {era} era"), wrong(command)?));
        }
    }
    for era in ERAS {
        let mut command = Command::new(python);
        command.arg(folder.join("python.py")).args([era, url]);
        outcomes.push((format!("python client, {era} era"), wrong(command)?));
    }
    Ok(outcomes)
}

/// What a client said that went wrong; none: nothing did.
pub fn wrong(mut command: Command) -> Result<Option<String>> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok((!output.status.success()).then(said))
}
