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
use super::units::{Rate, Size};
use super::unix::Bind;

impl ClientConfig {
    /// What a client edge with this configuration would do, a sentence a line.
    pub fn describe(&self) -> Vec<String> {
        let paths = &self.tunnel.paths;
        let mut sites: Vec<Vec<String>> = Vec::new();
        for route in paths.routes() {
            match sites.get_mut(route.site) {
                Some(ways) => ways.push(route.to_string()),
                None => sites.push(vec![route.to_string()]),
            }
        }
        let servers: Vec<String> = sites.iter().map(|ways| ways.join(" and ")).collect();
        let links = match (paths.links, paths.paths.len()) {
            (1, 0..=1) => String::new(),
            (links, paths) => format!(" with {} links", links * paths.max(1)),
        };
        let mut lines = vec![format!(
            "It would keep a tunnel to {}{links}, ask for a sign of life after {} of silence, keep streams for {} when the line is lost, and let new connections wait {} for a tunnel.",
            servers.join(", else "),
            format_duration(self.tunnel.heartbeat),
            format_duration(self.tunnel.resume_window),
            format_duration(self.tunnel.connect_wait)
        )];
        if self.listen.is_empty() {
            lines.push("It would listen for no application yet: add a [[listen]], or use --forward, --socks5, --http or --transparent.".to_owned());
        }
        lines.extend(self.listen.iter().map(service));
        if !self.accept.allow.is_empty() {
            lines.push(format!(
                "Reverse listeners of the server could reach {}.",
                reach(&self.accept.allow, &self.accept.deny)
            ));
        }
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
        lines.extend(self.listen.iter().map(service));
        if !self.listen.is_empty() {
            lines.push(format!(
                "New connections to these would wait {} for their client's tunnel.",
                format_duration(self.tunnel.connect_wait)
            ));
        }
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
        ListenKind::Forward(target) => match &listen.client {
            None => format!("forward connections to {target}"),
            Some(client) => format!("forward connections to {target} behind {client}"),
        },
        ListenKind::Socks5 => "serve SOCKS5".to_owned(),
        ListenKind::Http => "be an HTTP proxy".to_owned(),
        ListenKind::Transparent(config) => format!(
            "carry connections that a packet filter sends here (method {}{})",
            config.method.as_str(),
            if config.preserve_source {
                ", from the application's address on"
            } else {
                ""
            }
        ),
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
    let reach = if listen.bind.is_local() {
        ""
    } else {
        ", where other machines reach it"
    };
    let proxy = match (listen.proxy.accept, listen.proxy.send) {
        (false, None) => "",
        (true, None) => ", which must begin with a PROXY protocol header",
        (false, Some(_)) => ", and tell the target by the PROXY protocol who has connected",
        (true, Some(_)) => {
            ", which must begin with a PROXY protocol header that the target gets too"
        }
    };
    let rate = rate(listen.rate);
    format!(
        "Service {} would {purpose} from {}{reach}{users}{proxy}, with {history} and weight {}{rate}.",
        listen.name, listen.bind, listen.weight
    )
}

fn rate(rate: Option<Rate>) -> String {
    rate.map_or_else(String::new, |rate| format!(", at most {rate} each way"))
}

fn reach(allow: &[Rule], deny: &[Rule]) -> String {
    let rules = |rules: &[Rule]| {
        rules
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (allow.is_empty(), deny.is_empty()) {
        (true, _) => "nothing".to_owned(),
        (false, true) => rules(allow),
        (false, false) => format!("{} except {}", rules(allow), rules(deny)),
    }
}

fn policy(client: &ClientPolicyConfig) -> String {
    let reach = reach(&client.allow, &client.deny);
    let networks: Vec<String> = client.source.iter().map(ToString::to_string).collect();
    let source = match networks.is_empty() {
        true => String::new(),
        false => format!(" from addresses of their own in {}", networks.join(", ")),
    };
    let rate = rate(client.rate);
    let history = client
        .history
        .map_or_else(String::new, |size| format!(", and {size} of history each"));
    format!(
        "Clients named {} could reach {reach}{source}, with at most {} streams at a time and {} new ones a second{rate}{history}.",
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

fn endpoint(bind: &Bind) -> String {
    match bind {
        Bind::Tcp(address) => format!("http://{address}/"),
        Bind::Unix(_) => bind.to_string(),
    }
}

fn outside(admin: Option<&AdminConfig>, log: &LogConfig) -> [String; 2] {
    let admin = match admin {
        None => "It would have no admin endpoint; `status` and metrics need an [admin] section."
            .to_owned(),
        Some(AdminConfig {
            bind,
            token_file: None,
        }) => format!("Its admin endpoint would be at {}.", endpoint(bind)),
        Some(AdminConfig {
            bind,
            token_file: Some(file),
        }) => {
            format!(
                "Its admin endpoint would be at {} and ask for the token in {}.",
                endpoint(bind),
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
