//! A client on a person's machine, without certificate or token, by `kubectl bulkhead connect`.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use bulkhead_e2e::{Kubectl, call_message, eventually, objects, samples};
use serde_json::{Value, json};

const SESSION: &str = "app.kubernetes.io/component=connect";

fn developer() -> Kubectl {
    Kubectl::person("dev", &["acme-developers", "system:authenticated"])
}

/// The plugin while it serves.
struct Connected {
    plugin: Child,
    host: String,
}

impl Connected {
    fn start() -> Self {
        let mut command =
            developer().plugin_command(&["connect", "acme/ledger", "--agent", "billing", "--for", "10m"]);
        let mut plugin = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(plugin.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line.split_whitespace().next().unwrap_or_default();
        let host = url
            .strip_prefix("http://")
            .and_then(|rest| rest.strip_suffix("/mcp"));
        let host = host.expect("a URL is printed").to_owned();
        assert!(line.contains("acme/ledger, as agent billing, for 10m"), "{line}");
        Self { plugin, host }
    }

    /// Posts a message with these headers; the answer's head, and its message.
    fn post(&self, headers: &[(&str, &str)], message: &Value) -> Result<(String, Value)> {
        let body = message.to_string();
        let mut stream = TcpStream::connect(&self.host)?;
        let host = [("host", self.host.as_str())];
        let named = headers.iter().any(|(name, _)| *name == "host");
        let host = host.iter().filter(|_| !named);
        write!(stream, "POST /mcp HTTP/1.1\r\n")?;
        for (name, value) in host.chain(headers) {
            write!(stream, "{name}: {value}\r\n")?;
        }
        write!(
            stream,
            "content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
        let start = body.find('{');
        let message = start.and_then(|start| {
            // Chunks and events end their lines with what isn't JSON's.
            serde_json::Deserializer::from_str(&body[start..])
                .into_iter()
                .next()?
                .ok()
        });
        Ok((head.to_owned(), message.unwrap_or_default()))
    }

    fn end(&mut self, signal: &str) -> i32 {
        let pid = self.plugin.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
        self.plugin.wait().unwrap().code().unwrap_or(-1)
    }
}

/// The pods of sessions that run.
fn running() -> Result<Vec<String>> {
    let pods = objects("pods", "acme-agents", SESSION)?;
    let running = pods
        .iter()
        .filter(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null());
    Ok(running
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        .collect())
}

fn until_none_runs() {
    eventually("the pod is gone", || match running()?.as_slice() {
        [] => Ok(()),
        pods => bail!("{pods:?}"),
    });
}

#[test]
fn a_client_without_certificate_and_token_works_for_as_long_as_its_person_is_there() {
    samples();
    let mut connected = Connected::start();
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "desktop", "version": "1"}}});
    // A token is passed on as a person's, and this is nobody's.
    let (head, _) = connected
        .post(&[("authorization", "Bearer mine")], &initialize)
        .unwrap();
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    let (head, answer) = connected.post(&[], &initialize).unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200") && answer["result"].is_object(),
        "{head}"
    );
    let session = head
        .lines()
        .find_map(|line| line.strip_prefix("mcp-session-id: "))
        .unwrap();
    let session = [
        ("mcp-session-id", session),
        ("mcp-protocol-version", "2025-11-25"),
    ];
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    connected.post(&session, &ready).unwrap();
    let call = call_message("list_invoices", Some(&json!({"tenant_id": "globex"})));
    let (_, answer) = connected.post(&session, &call).unwrap();
    let text = answer["result"].to_string();
    assert!(text.contains("acme") && !text.contains("globex"), "{answer}");
    let hidden = call_message("delete_invoice", Some(&json!({"invoice_id": "x"})));
    let (_, answer) = connected.post(&session, &hidden).unwrap();
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("Unknown tool"),
        "{answer}"
    );

    // A page in a browser of this machine can't use it, whatever name it made the browser resolve.
    for header in [("host", "rebound.example"), ("origin", "https://page.example")] {
        let (head, _) = connected.post(&[header], &call).unwrap();
        assert!(head.starts_with("HTTP/1.1 403"), "{header:?}: {head}");
    }

    assert_eq!(connected.end("-TERM"), 130);
    until_none_runs();
    assert!(connected.post(&session, &call).is_err());

    // Also when nobody could tidy up.
    let mut connected = Connected::start();
    assert_eq!(running().unwrap().len(), 1);
    connected.end("-KILL");
    until_none_runs();
}

#[test]
fn who_runs_no_agents_connects_to_none() {
    samples();
    for person in [
        Kubectl::person("boss", &["acme-admins", "system:authenticated"]),
        Kubectl::person("other", &["globex-developers", "system:authenticated"]),
    ] {
        let mut command = person.plugin_command(&["connect", "acme/ledger", "--agent", "billing"]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && said.contains("forbidden"),
            "{said}"
        );
        assert!(output.stdout.is_empty());
    }
}
