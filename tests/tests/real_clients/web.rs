//! nginx with a directory of files, on a plain port (HTTP/1.1), one for HTTP/2 without TLS, and one with TLS.

use std::net::SocketAddr;
use std::path::Path;

use crate::server::Server;
use crate::stage::{Ground, succeed};

/// The name in its certificate.
pub const NAME: &str = "files.example";

pub struct Web {
    pub http1: SocketAddr,
    pub http2: SocketAddr,
    pub tls: SocketAddr,
    // Ends with it.
    _server: Server,
}

impl Web {
    /// Serves the files below `root` of the ground's directory.
    pub async fn start(ground: &Ground, nginx: &Path, openssl: &Path) -> Self {
        let root = ground.path("root");
        // Held until all are chosen, so that no two are the same.
        let listeners = [(); 3].map(|()| ground.listen_far());
        let [http1, http2, tls] = listeners
            .each_ref()
            .map(|listener| listener.local_addr().unwrap());
        drop(listeners);
        let (key, certificate) = (ground.path("web.key"), ground.path("web.pem"));
        let mut make = ground.near(openssl);
        make.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            &format!("/CN={NAME}"),
            "-addext",
            &format!("subjectAltName=DNS:{NAME}"),
        ])
        .args(["-keyout", &key, "-out", &certificate]);
        succeed(make).await;
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {};\n", ground.path("nginx-temporary")))
            .concat();
        let configuration = format!(
            "daemon off;\nuser root;\npid {pid};\nerror_log stderr;\nworker_processes 1;\nevents {{}}\n\
             http {{\naccess_log off;\ndefault_type application/octet-stream;\ntypes {{ text/html html; }}\n{temporary}\
             server {{\nlisten {http1};\nlisten {http2} http2;\nlisten {tls} ssl http2;\n\
             ssl_certificate {certificate};\nssl_certificate_key {key};\nroot {root};\n}}\n}}\n",
            pid = ground.path("nginx.pid"),
        );
        let file = ground.path("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let mut command = ground.far(nginx);
        command.args(["-e", "stderr", "-p", &ground.path(""), "-c", &file]);
        Self {
            http1,
            http2,
            tls,
            _server: Server::start(ground, command, tls).await,
        }
    }
}
