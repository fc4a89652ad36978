//! The metrics page of an edge, taken apart.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// The samples of one scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the text format of Prometheus and OpenMetrics.
    ///
    /// # Errors
    /// When a line is neither a comment nor a sample.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines
            .map(|line| Sample::parse(line).with_context(|| format!("not a sample: {line:?}")));
        Ok(Self {
            samples: samples.collect::<Result<_>>()?,
        })
    }

    /// The sum over all samples called `name` that carry these labels; `None` when there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let matching = |sample: &&Sample| {
            let carries = |(label, value): &(&str, &str)| {
                sample
                    .labels
                    .get(*label)
                    .is_some_and(|known| known == value)
            };
            sample.name == name && labels.iter().all(carries)
        };
        self.samples
            .iter()
            .filter(matching)
            .map(|sample| sample.value)
            .reduce(|a, b| a + b)
    }

    /// All names, each once.
    #[must_use]
    pub fn names(&self) -> std::collections::BTreeSet<&str> {
        self.samples
            .iter()
            .map(|sample| sample.name.as_str())
            .collect()
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (series, rest) = match line.split_once('{') {
            Some((name, rest)) => {
                let (labels, value) = rest.rsplit_once('}')?;
                ((name, labels), value)
            }
            None => {
                let (name, value) = line.split_once(' ')?;
                ((name, ""), value)
            }
        };
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self {
            name: series.0.to_owned(),
            labels: parse_labels(series.1)?,
            value,
        })
    }
}

/// `a="x",b="y"`, with `\"`, `\\` and `\n` in the values.
fn parse_labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text.trim_matches(',');
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.trim_start_matches(',').trim().to_owned(), value);
        rest = after[end + 1..].trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn reads_samples_with_and_without_labels() {
        let text = "# HELP x y\na_total{service=\"fi,les\",direction=\"to_wan\"} 12\na_total{service=\"b\\\"\"} 3\nup 1.5 99\n# EOF\n";
        let metrics = Metrics::parse(text).unwrap();
        assert_eq!(metrics.sum("a_total", &[]), Some(15.0));
        assert_eq!(metrics.sum("a_total", &[("service", "fi,les")]), Some(12.0));
        assert_eq!(metrics.sum("a_total", &[("service", "b\"")]), Some(3.0));
        assert_eq!(metrics.sum("up", &[]), Some(1.5));
        assert_eq!(metrics.sum("down", &[]), None);
        assert_eq!(metrics.names().len(), 2);
    }

    #[test]
    fn refuses_what_is_no_sample() {
        for bad in ["name", "name x", "name{a=\"b} 1", "name{a} 1"] {
            assert!(Metrics::parse(bad).is_err(), "{bad:?}");
        }
    }
}
