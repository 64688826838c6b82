//! A server by hand, for what no HTTP library writes: the text of a call says how it is answered.

use std::{fmt::Write as _, io};

use bulkhead_cluster::Port;
use bulkhead_proxy::testing::{Answer, Seen, upstream::plain};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::{JoinHandle, JoinSet},
    time::{Duration, sleep},
};

/// Bytes of a large answer.
pub const LARGE: usize = 4 << 20;

/// What is longer is a large body, and isn't looked into.
const SMALL: usize = 16 << 10;

/// The server. It can go, and come back at the same port.
pub struct Server {
    port: Port,
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    pub async fn start() -> Self {
        let server = Self {
            port: Port::reserve().unwrap(),
            serving: Mutex::default(),
        };
        server.begin().await;
        server
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    pub async fn begin(&self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port())).await.unwrap();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(converse(stream));
                while connections.try_join_next().is_some() {}
            }
        });
        *self.serving.lock().await = Some(accepting);
    }

    /// Nobody listens there when this returns, and the connections are closed.
    pub async fn end(&self) {
        if let Some(serving) = self.serving.lock().await.take() {
            serving.abort();
            let _ = serving.await;
        }
    }
}

async fn converse(mut stream: TcpStream) {
    let mut read = Vec::new();
    // However it ends: a peer that goes away is what this is about.
    while let Ok(Some(request)) = next(&mut stream, &mut read).await {
        if !matches!(answer(&mut stream, &request).await, Ok(true)) {
            return;
        }
    }
}

/// The next request; none at the end of the connection.
async fn next(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<Option<Seen>> {
    let head = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break read.drain(..end + 4).collect::<Vec<_>>();
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut line = lines.next().unwrap().split(' ').map(str::to_owned);
    let (method, target) = (line.next().unwrap(), line.next().unwrap());
    let headers: HeaderMap = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        })
        .collect();
    let length = headers
        .get("content-length")
        .map_or("0", |length| length.to_str().unwrap());
    let length = length.parse().unwrap();
    while read.len() < length {
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(Seen {
        method,
        target,
        headers,
        body: read.drain(..length).collect::<Vec<_>>().into(),
    }))
}

/// Answers. Whether the connection goes on.
async fn answer(stream: &mut TcpStream, request: &Seen) -> io::Result<bool> {
    if request.body.len() > SMALL {
        return write(stream, &sized(&good("large"))).await;
    }
    let text = match request.method.as_str() {
        "POST" => request.arguments()["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        _ => String::new(),
    };
    match text.as_str() {
        "silence" => until_closed(stream).await,
        "close" => Ok(false),
        "too short" => {
            write(stream, &response("content-length: 5000", &good("short"))).await?;
            Ok(false)
        }
        // The rest must not be the next answer.
        "too long" => write(stream, &response("content-length: 20", &good("long"))).await,
        "in advance" => write(stream, &(sized(&good("first")) + &sized(&good("in advance")))).await,
        "other id" => write(stream, &sized(&good("other").replace(r#""id":1"#, r#""id":2"#))).await,
        "compressed" => {
            let body = "\u{1f}".repeat(LARGE / 4);
            let headers = format!("content-encoding: gzip\r\ncontent-length: {}", body.len());
            write(stream, &response(&headers, &body)).await
        }
        "large" => write(stream, &sized(&good(&"x".repeat(LARGE)))).await,
        "asks" => {
            let asks = r#"{"jsonrpc":"2.0","id":9,"method":"sampling/createMessage","params":{}}"#;
            let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {
                "resultType": "complete", "content": [{"type": "text", "text": "asked"}]}});
            let events = format!("data: {asks}\n\n").repeat(50) + &format!("data: {answer}\n\n");
            write(stream, &(EVENTS.to_owned() + &events)).await?;
            Ok(false)
        }
        "endless event" => endless(stream, "data: ", &"x".repeat(64 << 10)).await,
        "endless events" => {
            let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {
                "progressToken": "p", "progress": 1, "message": "x".repeat(64 << 10)}});
            endless(stream, "", &format!("data: {progress}\n\n")).await
        }
        "endless comments" => endless(stream, "", &format!(": {}\n\n", "x".repeat(64 << 10))).await,
        "slow" => {
            write(stream, &response("content-length: 5000", "{")).await?;
            loop {
                tokio::select! {
                    gone = until_closed(stream) => return gone,
                    () = sleep(Duration::from_millis(5)) => {}
                }
                write(stream, " ").await?;
            }
        }
        _ => {
            let Answer::Whole(status, headers, body) = plain(request) else {
                panic!("a plain answer is whole");
            };
            let mut head = format!("HTTP/1.1 {status} As told\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in headers {
                let _ = write!(head, "{name}: {value}\r\n");
            }
            write(stream, &(head + "\r\n" + &body)).await
        }
    }
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

async fn endless(stream: &mut TcpStream, first: &str, part: &str) -> io::Result<bool> {
    write(stream, &(EVENTS.to_owned() + first)).await?;
    loop {
        write(stream, part).await?;
    }
}

async fn until_closed(stream: &mut TcpStream) -> io::Result<bool> {
    while stream.read(&mut [0; 64]).await? > 0 {}
    Ok(false)
}

async fn write(stream: &mut TcpStream, text: &str) -> io::Result<bool> {
    stream.write_all(text.as_bytes()).await?;
    Ok(true)
}

fn good(text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#)
}

fn response(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}\r\n\r\n{body}")
}

fn sized(body: &str) -> String {
    response(&format!("content-length: {}", body.len()), body)
}
