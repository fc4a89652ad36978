//! The texts that `init` and `join` write.

use std::fmt::Write as _;

use base64::Engine as _;

use super::name::EdgeName;
use crate::config::{Rule, Target};

/// A DER value as PEM.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    // RFC 7468, section 2.
    const LINE_CHARACTERS: usize = 64;
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for (index, character) in encoded.chars().enumerate() {
        if index != 0 && index % LINE_CHARACTERS == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

/// The configuration that `init` writes.
pub(crate) fn server_toml(address: &Target, allow: &[Rule]) -> String {
    let mut rules = String::new();
    for rule in allow {
        // Writing to a String cannot fail.
        let _ok = write!(
            rules,
            "{}\"{rule}\"",
            if rules.is_empty() { "" } else { ", " }
        );
    }
    format!(
        r#"# The server edge of wanproxy. `wanproxy-server check --config FILE` says what this file means.

[tunnel]
listen = "[::]:{port}"                # clients connect to {address}
# heartbeat = "5s"                    # a line that is silent for longer is asked for a sign of life
# resume_window = "5m"                # how long open connections wait for a lost line to come back
# drain_timeout = "30s"               # how long running streams may take to finish on SIGTERM

[identity]                            # relative to this file
ca = "ca.pem"
certificate = "edge.pem"
key = "edge.key"
ca_key = "ca.key"                     # lets clients renew their certificates; invites and revocations are kept beside it

# What clients may reach. The first [[client]] whose name matches counts; in it, deny beats allow, and nothing unwritten is allowed.
# Rules are NETWORK:PORTS or NAME:PORTS, like "10.0.0.0/8:*", "git.example.com:22,443", "*.example.com:8000-8100", "[2001:db8::/32]:443".
[[client]]
name = "*"
allow = [{rules}]
deny = []
# max_streams = 10000
# new_streams_per_second = 1000
# history = "1GiB"                    # room that each of them has reserved; default: half of what is left when it first comes

[history]                             # what was sent before and need not be sent again; holds plain bytes of traffic
directory = "history"                 # relative to this file
# size = "10GiB"                      # default: this, but no more than half of what the disk has free

[admin]                               # dashboard, metrics and status
bind = "127.0.0.1:9901"

[log]
level = "info"                        # "error", "warn", "info", "debug" or "trace"
format = "text"                       # or "json"
"#,
        port = address.port()
    )
}

/// The configuration that `join` writes.
pub(crate) fn client_toml(name: &EdgeName, server: &Target) -> String {
    format!(
        r#"# The client edge of wanproxy. `wanproxy-client check --config FILE` says what this file means.
name = "{name}"

[tunnel]
server = ["{server}"]                 # several are tried in this order
# heartbeat = "5s"                    # a line that is silent for longer is asked for a sign of life
# resume_window = "5m"                # how long open connections wait for a lost line to come back
# connect_wait = "10s"                # how long a new connection waits for a tunnel before it is refused
# drain_timeout = "30s"               # how long running streams may take to finish on SIGTERM

[identity]                            # relative to this file
ca = "ca.pem"
certificate = "edge.pem"
key = "edge.key"

# Services: where applications connect to. Remove the # to use one.
# [[listen]]
# name = "files"
# kind = "forward"                    # every connection goes to the target
# bind = "127.0.0.1:8445"
# target = "10.0.0.5:445"
#
# [[listen]]
# name = "proxy"
# kind = "socks5"                     # the application names the target
# bind = "127.0.0.1:1080"

[history]                             # what was received before and need not be sent again; holds plain bytes of traffic
directory = "history"                 # relative to this file
# size = "10GiB"                      # default: this, but no more than half of what the disk has free

[admin]                               # dashboard, metrics and status
bind = "127.0.0.1:9900"

[log]
level = "info"                        # "error", "warn", "info", "debug" or "trace"
format = "text"                       # or "json"
"#
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use super::*;
    use crate::config::{ClientConfig, ServerConfig};

    #[test]
    fn what_is_written_is_a_configuration() {
        let allow: Vec<Rule> = ["10.0.0.0/8:*", "[::1]:22"]
            .iter()
            .map(|rule| rule.parse().unwrap())
            .collect();
        let address: Target = "hq.example.com:7443".parse().unwrap();
        let server =
            ServerConfig::parse(&server_toml(&address, &allow), Path::new("/x/server.toml"))
                .unwrap();
        assert_eq!(server.tunnel.listen.port(), 7443);
        assert_eq!(server.client.first().unwrap().allow, allow);
        assert_eq!(
            server.identity.ca_key.as_deref(),
            Some(Path::new("/x/ca.key"))
        );
        let client = ClientConfig::parse(
            &client_toml(&"branch-1".parse().unwrap(), &address),
            Path::new("/x/client.toml"),
        )
        .unwrap();
        assert_eq!(client.tunnel.paths.server.first(), Some(&address));
        assert!(client.listen.is_empty() && client.admin.is_some());
        let uncommented = client_toml(&"branch-1".parse().unwrap(), &address)
            .replace("# [[listen]]", "[[listen]]")
            .replace("\n# ", "\n");
        let sample: String = uncommented
            .lines()
            .filter(|line| line.contains(" = ") || line.starts_with('['))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(
            ClientConfig::parse(&sample, Path::new("/x/client.toml"))
                .unwrap()
                .listen
                .len(),
            2
        );
    }

    #[test]
    fn pem_is_folded_at_64_characters() {
        use rustls_pki_types::{CertificateDer, pem::PemObject};
        let der: Vec<u8> = (0..=255).collect();
        let text = pem("CERTIFICATE", &der);
        assert!(text.lines().all(|line| line.len() <= 64));
        assert_eq!(
            CertificateDer::from_pem_slice(text.as_bytes())
                .unwrap()
                .as_ref(),
            der
        );
    }
}
