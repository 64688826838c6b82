//! nginx: mTLS, and what a reverse proxy with kept connections needs.

use std::{fs, process::Command};

use anyhow::Result;

use super::Stage;
use crate::contender::Contender;

pub(super) fn start(name: &'static str, stage: &Stage<'_>) -> Result<Contender> {
    let address = stage.plan.address(2);
    let (folder, pki) = (stage.folder.display(), stage.pki.folder.display());
    let upstream = stage.upstream;
    let workers = stage.plan.workers;
    let configuration = format!(
        "daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    keepalive_requests 1000000000;
    upstream server {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}
    server {{
        listen {address} ssl;
        ssl_protocols TLSv1.3;
        ssl_certificate {pki}/server.crt;
        ssl_certificate_key {pki}/server.key;
        ssl_client_certificate {pki}/ca.crt;
        ssl_verify_client on;
        location / {{
            proxy_pass http://server;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
        }}
    }}
}}
"
    );
    let file = stage.folder.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = Command::new(&stage.plan.nginx);
    command
        .arg("-e")
        .arg(stage.folder.join("nginx.log"))
        .arg("-c")
        .arg(&file);
    let process = stage.run("nginx", &mut command, address)?;
    let tls = Some(stage.pki.client_config()?);
    Contender::new(name, "mTLS, nothing else", address, tls, stage.pki, process)
}
