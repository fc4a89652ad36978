//! What a configuration means, in plain sentences for `check`.

use humantime::format_duration;

use super::client::ClientConfig;
use super::listen::{Dedup, ListenConfig, ListenKind};
use super::policy::Rule;
use super::resources::{MemoryConfig, PoolsConfig};
use super::sections::{
    AdminConfig, CodecConfig, DEFAULT_HISTORY_BYTES, HistoryConfig, Level, LogConfig, LogFormat,
};
use super::server::{ClientPolicyConfig, ServerConfig};
use super::units::Size;

impl ClientConfig {
    /// What a client edge with this configuration would do, a sentence a line.
    pub fn describe(&self) -> Vec<String> {
        let servers: Vec<String> = self.tunnel.server.iter().map(ToString::to_string).collect();
        let mut lines = vec![format!(
            "It would keep a tunnel to {}, ask for a sign of life after {} of silence, keep streams for {} when the line is lost, and let new connections wait {} for a tunnel.",
            servers.join(", else "),
            format_duration(self.tunnel.heartbeat),
            format_duration(self.tunnel.resume_window),
            format_duration(self.tunnel.connect_wait)
        )];
        if self.listen.is_empty() {
            lines.push("It would listen for no application yet: add a [[listen]], or use --forward, --socks5 or --http.".to_owned());
        }
        lines.extend(self.listen.iter().map(service));
        lines.extend(shared(
            &self.history,
            &self.codec,
            &self.pools,
            &self.memory,
        ));
        lines.extend(outside(self.admin.as_ref(), &self.log));
        lines.push(format!(
            "On SIGTERM it would give running streams {} to finish.",
            format_duration(self.tunnel.drain_timeout)
        ));
        lines
    }
}

impl ServerConfig {
    /// What a server edge with this configuration would do, a sentence a line.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "It would accept tunnels at {}, ask for a sign of life after {} of silence, and keep streams for {} when the line is lost.",
            self.tunnel.listen,
            format_duration(self.tunnel.heartbeat),
            format_duration(self.tunnel.resume_window)
        )];
        if self.client.iter().all(|client| client.allow.is_empty()) {
            lines.push(
                "No client could reach anything yet: add allow rules to a [[client]].".to_owned(),
            );
        }
        lines.extend(self.client.iter().map(policy));
        lines.extend(shared(
            &self.history,
            &self.codec,
            &self.pools,
            &self.memory,
        ));
        lines.extend(outside(self.admin.as_ref(), &self.log));
        lines.push(format!(
            "On SIGTERM it would give running streams {} to finish.",
            format_duration(self.tunnel.drain_timeout)
        ));
        lines
    }
}

fn service(listen: &ListenConfig) -> String {
    let purpose = match &listen.kind {
        ListenKind::Forward(target) => format!("forward connections to {target}"),
        ListenKind::Socks5 => "serve SOCKS5".to_owned(),
        ListenKind::Http => "be an HTTP proxy".to_owned(),
    };
    let users = match listen.users.len() {
        0 => String::new(),
        1 => ", for one user with a password".to_owned(),
        count => format!(", for {count} users with passwords"),
    };
    let history = match listen.dedup {
        Dedup::Shared => "the shared history",
        Dedup::Isolated => "a history of its own",
        Dedup::Off => "no history",
    };
    let reach = if listen.bind.ip().to_canonical().is_loopback() {
        ""
    } else {
        ", where other machines reach it"
    };
    format!(
        "Service {} would {purpose} from {}{reach}{users}, with {history} and weight {}.",
        listen.name, listen.bind, listen.weight
    )
}

fn policy(client: &ClientPolicyConfig) -> String {
    let rules = |rules: &[Rule]| {
        rules
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let reach = match (client.allow.is_empty(), client.deny.is_empty()) {
        (true, _) => "nothing".to_owned(),
        (false, true) => rules(&client.allow),
        (false, false) => format!("{} except {}", rules(&client.allow), rules(&client.deny)),
    };
    let history = client
        .history
        .map_or_else(String::new, |size| format!(", and {size} of history each"));
    format!(
        "Clients named {} could reach {reach}, with at most {} streams at a time and {} new ones a second{history}.",
        client.name, client.max_streams, client.new_streams_per_second
    )
}

fn shared(
    history: &HistoryConfig,
    codec: &CodecConfig,
    pools: &PoolsConfig,
    memory: &MemoryConfig,
) -> [String; 2] {
    let budget = memory.budget;
    let memory = match (&history.directory, history.size) {
        (None, size) => format!(
            "It would use {budget} at most for buffers and histories, and {} for histories, which are kept in memory.",
            size.map_or("half of that".to_owned(), |size| format!("at most {size}"))
        ),
        (Some(directory), size) => format!(
            "It would use {budget} at most for buffers, indexes and caches, and keep histories in {}, where they take {} at most.",
            directory.display(),
            size.map_or_else(
                || format!(
                    "half of what the disk has free, {}",
                    Size::from_bytes(DEFAULT_HISTORY_BYTES)
                ),
                |size| size.to_string()
            )
        ),
    };
    let level = match codec.level {
        Level::Auto => "compress at a level of its own choice".to_owned(),
        Level::Off => "find repeats but compress nothing else".to_owned(),
        Level::Fixed(level) => format!("compress at level {}", level.get()),
    };
    [
        memory,
        format!(
            "It would {level}, with {} codec and {} crypto threads, queues of {} jobs, and blocks below {} encoded on the spot.",
            pools.codec_threads, pools.crypto_threads, pools.queue, pools.inline_below
        ),
    ]
}

fn outside(admin: Option<&AdminConfig>, log: &LogConfig) -> [String; 2] {
    let admin = match admin {
        None => "It would have no admin endpoint; `status` and metrics need an [admin] section."
            .to_owned(),
        Some(AdminConfig {
            bind,
            token_file: None,
        }) => format!("Its admin endpoint would be at http://{bind}/."),
        Some(AdminConfig {
            bind,
            token_file: Some(file),
        }) => {
            format!(
                "Its admin endpoint would be at http://{bind}/ and ask for the token in {}.",
                file.display()
            )
        }
    };
    let format = match log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "JSON",
    };
    [
        admin,
        format!(
            "It would log {} and worse to stderr as {format}.",
            log.level.as_str()
        ),
    ]
}
