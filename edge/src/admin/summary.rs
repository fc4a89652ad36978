//! The status of an edge as people read it.

use std::fmt::Write;
use std::time::Duration;

use super::status::{CodecBytes, HistoryStatus, ServiceStatus, Status, TunnelStatus, ratio};
use crate::journal::now_ms;
use crate::table::{size, table};

/// The text that `status` prints.
pub fn summary(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, status);
    text
}

fn write(text: &mut String, status: &Status) -> std::fmt::Result {
    let uptime =
        Duration::try_from_secs_f64(status.uptime_seconds.max(0.0).floor()).unwrap_or_default();
    writeln!(
        text,
        "wanproxy-{} {} (version {}), up {}",
        status.edge,
        status.name,
        status.version,
        humantime::format_duration(uptime)
    )?;
    if status.tunnels.is_empty() {
        writeln!(text, "no tunnels")?;
    }
    for tunnel in &status.tunnels {
        tunnel_line(text, tunnel)?;
    }
    if !status.services.is_empty() {
        text.push('\n');
        text.push_str(&services(&status.services));
        text.push('\n');
    }
    let savings = status.savings;
    writeln!(
        text,
        "savings: {} on the LAN, {} on the WAN, ratio {}",
        size(savings.lan_bytes),
        size(savings.wan_bytes),
        number(savings.ratio)
    )?;
    travelled(text, "sent", status.codec)?;
    travelled(text, "received", status.codec_received)?;
    history_lines(text, &status.history)?;
    for job in &status.jobs {
        write!(
            text,
            "job {}: {} for {}, {}",
            job.token, job.why, job.who, job.state
        )?;
        if let (Some(done), Some(total)) = (job.done_bytes, job.total_bytes) {
            write!(text, ", {} of {}", size(done), size(total))?;
        }
        if let Some(pages) = job.damaged_pages {
            write!(text, ", {pages} pages damaged")?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn travelled(text: &mut String, which: &str, bytes: CodecBytes) -> std::fmt::Result {
    let CodecBytes {
        copied,
        compressed,
        raw,
    } = bytes;
    writeln!(
        text,
        "{which}: {} copied, {} compressed, {} raw",
        size(copied),
        size(compressed),
        size(raw)
    )
}

fn history_lines(text: &mut String, history: &HistoryStatus) -> std::fmt::Result {
    let hits = history
        .hit_rate
        .map_or_else(|| "-".to_owned(), |rate| format!("{:.0} %", rate * 100.0));
    let place = if history.directory.is_some() {
        "on disk"
    } else {
        "in memory"
    };
    writeln!(
        text,
        "history: {} of {} {place}, index {}{}, hit rate {hits}",
        size(history.bytes),
        size(history.capacity_bytes),
        size(history.index_bytes),
        if history.loading {
            " (still loading)"
        } else {
            ""
        },
    )?;
    if let Some(excuse) = &history.excuse {
        writeln!(text, "history: in memory, because {excuse}")?;
    }
    if history.read_only {
        writeln!(
            text,
            "history: the disk takes nothing at present, so nothing new is remembered; the log says why"
        )?;
    }
    if history.damaged_pages > 0 {
        writeln!(
            text,
            "history: {} pages could not be read and are forgotten",
            history.damaged_pages
        )?;
    }
    Ok(())
}

fn tunnel_line(text: &mut String, tunnel: &TunnelStatus) -> std::fmt::Result {
    write!(text, "tunnel {}: {}", tunnel.peer, tunnel.state)?;
    if let (true, Some(since)) = (tunnel.state != "up", tunnel.since_unix_seconds) {
        let seconds = (now_ms() / 1_000).saturating_sub(since);
        let for_long = humantime::format_duration(Duration::from_secs(seconds));
        write!(text, " for {for_long}")?;
    }
    if let Some(error) = &tunnel.error {
        write!(text, ", {error}")?;
    }
    for link in &tunnel.links {
        let rtt = link
            .rtt_ms
            .map_or_else(String::new, |rtt| format!(", {rtt:.1} ms"));
        write!(text, ", link {}{rtt}", link.address)?;
    }
    if tunnel.state != "connecting" {
        write!(
            text,
            ", {} on the LAN, {} on the WAN",
            size(tunnel.lan_bytes),
            size(tunnel.wan_bytes)
        )?;
    }
    if tunnel.resumes > 0 {
        write!(text, ", resumed {} times", tunnel.resumes)?;
    }
    writeln!(text)
}

fn services(services: &[ServiceStatus]) -> String {
    let head = [
        "SERVICE", "KIND", "BIND", "OPEN", "TOTAL", "LAN", "WAN", "RATIO",
    ];
    let row = |service: &ServiceStatus| {
        let lan = service
            .lan_bytes_to_wan
            .saturating_add(service.lan_bytes_from_wan);
        let wan = service
            .wan_bytes_to_wan
            .saturating_add(service.wan_bytes_from_wan);
        let bind = if service.bind.is_empty() {
            "-"
        } else {
            &service.bind
        };
        [
            service.name.clone(),
            service.kind.clone(),
            bind.to_owned(),
            service.open.to_string(),
            service.total.to_string(),
            size(lan),
            size(wan),
            number(ratio(lan, wan)),
        ]
    };
    table(head, services.iter().map(row))
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

#[cfg(test)]
mod tests {
    use super::super::status::{JobStatus, LinkStatus, Savings};
    use super::*;

    #[test]
    fn a_client_with_a_tunnel_reads_well() {
        let status = Status {
            edge: "client".to_owned(),
            name: "branch-1".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_seconds: 3725.9,
            tunnels: vec![TunnelStatus {
                peer: "server".to_owned(),
                state: "up".to_owned(),
                links: vec![LinkStatus {
                    address: "192.0.2.1:7443".to_owned(),
                    rtt_ms: Some(41.26),
                    ..LinkStatus::default()
                }],
                lan_bytes: 2048,
                wan_bytes: 1024,
                ..TunnelStatus::default()
            }],
            services: vec![ServiceStatus {
                name: "files".to_owned(),
                kind: "forward".to_owned(),
                bind: "127.0.0.1:8445".to_owned(),
                open: 1,
                total: 12,
                lan_bytes_from_wan: 2048,
                wan_bytes_from_wan: 512,
                ..ServiceStatus::default()
            }],
            savings: Savings::new(2048, 1024),
            codec: CodecBytes {
                copied: 1,
                compressed: 2,
                raw: 3,
            },
            codec_received: CodecBytes {
                copied: 4,
                ..CodecBytes::default()
            },
            history: HistoryStatus {
                bytes: 1 << 20,
                capacity_bytes: 1 << 30,
                index_bytes: 4096,
                hit_rate: Some(0.834),
                directory: Some("/srv/history".to_owned()),
                loading: true,
                read_only: true,
                damaged_pages: 2,
                ..HistoryStatus::default()
            },
            jobs: vec![JobStatus {
                token: "7".to_owned(),
                who: "histories".to_owned(),
                why: "verify".to_owned(),
                state: "running".to_owned(),
                total_bytes: Some(2048),
                done_bytes: Some(1024),
                damaged_pages: Some(1),
            }],
            ..Status::default()
        };
        let expected = "\
wanproxy-client branch-1 (version 0.1.0), up 1h 2m 5s
tunnel server: up, link 192.0.2.1:7443, 41.3 ms, 2.0 KiB on the LAN, 1.0 KiB on the WAN

SERVICE  KIND     BIND            OPEN  TOTAL  LAN      WAN    RATIO
files    forward  127.0.0.1:8445  1     12     2.0 KiB  512 B  4.0

savings: 2.0 KiB on the LAN, 1.0 KiB on the WAN, ratio 2.0
sent: 1 B copied, 2 B compressed, 3 B raw
received: 4 B copied, 0 B compressed, 0 B raw
history: 1.0 MiB of 1.0 GiB on disk, index 4.0 KiB (still loading), hit rate 83 %
history: the disk takes nothing at present, so nothing new is remembered; the log says why
history: 2 pages could not be read and are forgotten
job 7: verify for histories, running, 1.0 KiB of 2.0 KiB, 1 pages damaged
";
        assert_eq!(summary(&status), expected);
    }

    #[test]
    fn an_edge_that_has_done_nothing_reads_well() {
        let text = summary(&Status {
            edge: "server".to_owned(),
            name: "server".to_owned(),
            version: "0.1.0".to_owned(),
            ..Status::default()
        });
        assert!(
            text.starts_with(
                "wanproxy-server server (version 0.1.0), up 0s\nno tunnels\nsavings: 0 B"
            ),
            "{text}"
        );
        assert!(
            text.contains("ratio -\n") && text.contains("hit rate -\n"),
            "{text}"
        );
    }
}
