//! Streams on both sides of a sidecar: a server whose streams the test writes, and a client that reads one.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, channel::mpsc};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    PATIENCE,
    client::Client,
    upstream::{Answer, Seen, plain},
};

/// A server whose streams the test writes: each GET, and each call of `list_invoices`, is one.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<Vec<mpsc::UnboundedSender<Bytes>>>>);

impl Streams {
    /// Answers a request.
    pub fn answer(&self, request: &Seen) -> Answer {
        if request.method == "DELETE" {
            return plain(request);
        }
        let streamed = request.method == "GET"
            || matches!(
                request.json()["method"].as_str(),
                Some("tools/call" | "subscriptions/listen")
            );
        if request.method == "POST" && request.json()["method"].is_null() {
            return Answer::Whole(202, vec![], String::new());
        }
        if !streamed {
            return plain(request);
        }
        let (sender, receiver) = mpsc::unbounded();
        self.0.lock().unwrap().push(sender);
        Answer::Events(receiver.boxed())
    }

    /// Writes an event to the newest stream.
    pub fn event(&self, id: &str, data: &str) {
        let id = if id.is_empty() {
            String::new()
        } else {
            format!("id: {id}\n")
        };
        let event = format!("{id}data: {data}\n\n");
        let streams = self.0.lock().unwrap();
        streams
            .last()
            .unwrap()
            .unbounded_send(Bytes::from(event))
            .unwrap();
    }

    /// Ends the newest stream.
    pub fn end(&self) {
        self.0.lock().unwrap().pop();
    }

    /// Whether the sidecar has closed the newest stream.
    pub fn newest_is_closed(&self) -> bool {
        self.0
            .lock()
            .unwrap()
            .last()
            .is_none_or(mpsc::UnboundedSender::is_closed)
    }
}

/// An open stream of a client.
pub struct Stream {
    /// What wasn't read yet.
    pub body: Incoming,
    text: String,
    // Dropping it would close the connection.
    _client: Client,
}

impl Stream {
    /// Opens one; the answer must be a stream.
    pub async fn open(client: Client, method: &str, headers: &[(&str, &str)], body: &str) -> Self {
        let request = client.request(method, headers, body.to_owned());
        Self::asked(client, request).await
    }

    /// The same by any request.
    pub async fn asked(mut client: Client, request: Request<Full<Bytes>>) -> Self {
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body(),
            text: String::new(),
            _client: client,
        }
    }

    /// The next event: its id and its data. `None`: the stream has ended.
    pub async fn next(&mut self) -> Option<(Option<String>, String)> {
        // Comments come all the time, so each one alone would never take too long.
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let line = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
                };
                let found = (line("id:"), line("data:").unwrap_or_default());
                let is_event = event.lines().any(|line| line.starts_with("data:"));
                let rest = rest.to_owned();
                self.text = rest;
                if is_event {
                    return Some(found);
                }
            }
            let frame = tokio::time::timeout_at(deadline, self.body.frame())
                .await
                .expect("an event or the end must come");
            match frame {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.text.push_str(std::str::from_utf8(&data).unwrap());
                    // Comments stand alone on their lines.
                    self.text = self.text.replace(": keep-alive\n", "");
                }
                _ => return None,
            }
        }
    }

    /// The next message.
    pub async fn message(&mut self) -> Value {
        serde_json::from_str(&self.next().await.unwrap().1).unwrap()
    }
}
