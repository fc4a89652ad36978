//! The classic text format of Prometheus, version 0.0.4: a counter is called what is scraped, and so may stand beside a gauge of the name without
//! `_total`.

use std::fmt::{self, Display, Write};

use super::{Family, MetricKind, Value};

/// The text of all families.
///
/// # Errors
/// A sample's value is not of its family's kind.
pub(super) fn text(families: &[Family]) -> Result<String, fmt::Error> {
    let mut text = String::new();
    for family in families {
        write_family(&mut text, family)?;
    }
    Ok(text)
}

fn write_family(text: &mut String, family: &Family) -> fmt::Result {
    let (name, kind) = match family.kind {
        MetricKind::Counter | MetricKind::CounterBesideGauge => {
            (format!("{}_total", family.name), "counter")
        }
        MetricKind::Gauge => (family.name.to_owned(), "gauge"),
        MetricKind::Histogram => (family.name.to_owned(), "histogram"),
    };
    let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
    writeln!(text, "# HELP {name} {help}")?;
    writeln!(text, "# TYPE {name} {kind}")?;
    for sample in &family.samples {
        let mut labels: Vec<_> = sample
            .labels
            .iter()
            .map(|(name, value)| (*name, value.clone()))
            .collect();
        match (family.kind, &sample.value) {
            (MetricKind::Histogram, Value::Distribution { buckets, sum }) => {
                let mut up_to_here = 0;
                for (bound, count) in buckets {
                    up_to_here += count;
                    labels.push(("le", number(*bound)));
                    write_sample(text, &format!("{name}_bucket"), &labels, up_to_here)?;
                    labels.pop();
                }
                write_sample(text, &format!("{name}_sum"), &labels, number(*sum))?;
                write_sample(text, &format!("{name}_count"), &labels, up_to_here)?;
            }
            (MetricKind::Histogram, _) | (_, Value::Distribution { .. }) => return Err(fmt::Error),
            (_, Value::Whole(value)) => write_sample(text, &name, &labels, value)?,
            (_, Value::Real(value)) => write_sample(text, &name, &labels, number(*value))?,
        }
    }
    Ok(())
}

fn write_sample(
    text: &mut String,
    name: &str,
    labels: &[(&str, String)],
    value: impl Display,
) -> fmt::Result {
    text.write_str(name)?;
    for (index, (label, value)) in labels.iter().enumerate() {
        let before = if index == 0 { '{' } else { ',' };
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        write!(text, "{before}{label}=\"{value}\"")?;
    }
    let after = if labels.is_empty() { "" } else { "}" };
    writeln!(text, "{after} {value}")
}

/// A number as Go reads it.
fn number(value: f64) -> String {
    if value.is_infinite() {
        let sign = if value > 0.0 { '+' } else { '-' };
        return format!("{sign}Inf");
    }
    value.to_string()
}
