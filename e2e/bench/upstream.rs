//! The MCP server behind all of them: it reads a request, and answers at once. Beside the call that is measured it has what a
//! client needs before it calls: a handshake, and a list of tools.

use std::{convert::Infallible, net::SocketAddr};

use anyhow::Result;
use bytes::Bytes;
use futures::stream;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, Collected, Either, Full, StreamBody};
use hyper::{
    body::{Body, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Builder};

use crate::call::{ANSWER, CALL, EVENTS_PATH, TOOL};

/// Serves until it is ended.
pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let listener = TcpListener::bind(listen).await?;
            let answer = Bytes::from(ANSWER.as_str());
            let event = Bytes::from(format!("event: message\ndata: {}\n\n", *ANSWER));
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let (answer, event) = (answer.clone(), event.clone());
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let (answer, event) = (answer.clone(), event.clone());
                    async move {
                        let as_event = request.uri().path() == EVENTS_PATH;
                        // What can't be read is no call, and its connection ends by itself.
                        let body = request.into_body().collect().await;
                        let body = body.map(Collected::to_bytes).unwrap_or_default();
                        let is_call = body.windows(CALL.len()).any(|part| part == CALL.as_bytes());
                        if is_call && as_event {
                            return Ok(streamed(event));
                        }
                        let answer = if is_call { Some(answer) } else { other(&body) };
                        let mut response =
                            Response::new(Either::Left(Full::new(answer.clone().unwrap_or_default())));
                        if answer.is_none() {
                            *response.status_mut() = StatusCode::ACCEPTED;
                        }
                        let json = header::HeaderValue::from_static("application/json");
                        response.headers_mut().insert(header::CONTENT_TYPE, json);
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        })
}

/// A stream of one event, whose length is known to nobody before its end.
fn streamed(event: Bytes) -> Response<Either<Full<Bytes>, impl Body<Data = Bytes, Error = Infallible>>> {
    let stream = StreamBody::new(stream::iter([Ok(Frame::data(event))]));
    let mut response = Response::new(Either::Right(stream));
    let events = header::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, events);
    response
}

/// The answer to what isn't a call; a notification has none.
pub(crate) fn other(body: &[u8]) -> Option<Bytes> {
    let message: Value = serde_json::from_slice(body).unwrap_or_default();
    let id = message.get("id")?;
    let text = |max: u32| json!({"type": "string", "maxLength": max});
    let schema = json!({
        "type": "object", "required": ["tenant_id"],
        "properties": {
            "tenant_id": text(64), "query": text(1000), "status": {"enum": ["open", "paid", "void"]},
            "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
        },
    });
    let tool =
        |name: &str| json!({"name": name, "description": "Looks for something.", "inputSchema": schema});
    let result = match message["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}},
            "serverInfo": {"name": "bench", "version": "1"},
        }),
        Some("tools/list") => {
            let tools = [TOOL, "search_notes", "get_invoice"].map(tool);
            json!({"tools": tools})
        }
        _ => {
            let error = json!({"code": -32601, "message": "Method not found"});
            return Some(
                json!({"jsonrpc": "2.0", "id": id, "error": error})
                    .to_string()
                    .into(),
            );
        }
    };
    Some(
        json!({"jsonrpc": "2.0", "id": id, "result": result})
            .to_string()
            .into(),
    )
}
