//! What runs in pods, as the cluster's administrator sees it: commands in them, and what they have said.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{AttachParams, LogParams},
};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{objects, objects::CLUSTER};

fn pods(namespace: &str) -> Api<Pod> {
    Api::namespaced(CLUSTER.client.clone(), namespace)
}

/// Runs a command in a pod's first container, and returns what it printed.
///
/// # Errors
/// When it can't be run or fails; then with what it complained about.
pub fn exec(namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
    let how = AttachParams::default();
    CLUSTER.runtime.block_on(async {
        let mut process = pods(namespace).exec(pod, command.iter().copied(), &how).await?;
        let status = process.take_status().context("a status")?;
        let (printed, complained) = tokio::try_join!(read(process.stdout()), read(process.stderr()))?;
        let status = status.await;
        process.join().await?;
        match status {
            Some(status) if status.status.as_deref() == Some("Success") => Ok(printed),
            status => bail!(
                "{} in {namespace}/{pod}: {complained} {status:?}",
                command.join(" ")
            ),
        }
    })
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> Result<String> {
    let mut text = String::new();
    stream.context("a stream")?.read_to_string(&mut text).await?;
    Ok(text)
}

/// What a container has said so far, a JSON object a line; other lines are left out.
pub fn said(namespace: &str, pod: &str, container: &str) -> Result<Vec<Value>> {
    let of = LogParams {
        container: Some(container.to_owned()),
        ..LogParams::default()
    };
    let text = CLUSTER.runtime.block_on(pods(namespace).logs(pod, &of))?;
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

/// The same of every pod with these labels.
pub fn all_said(namespace: &str, labels: &str, container: &str) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for pod in objects("pods", namespace, labels)? {
        let name = pod["metadata"]["name"].as_str().context("a name")?;
        lines.extend(said(namespace, name, container)?);
    }
    Ok(lines)
}
