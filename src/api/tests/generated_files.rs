//! Generated files are what the types and the chart say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Clippy sees no tests in these helpers.

use std::process::Command;

use bulkhead_cluster::{Paths, program};

#[test]
fn generated_files_are_current() {
    // Helm is part of it: the manifest is the chart, rendered.
    let helm = program(&Paths::from_env().unwrap(), "helm").expect("Helm renders manifests/install.yaml");
    let output = Command::new(env!("CARGO_BIN_EXE_bulkhead-generate"))
        .arg("--check")
        .env("HELM", helm)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
