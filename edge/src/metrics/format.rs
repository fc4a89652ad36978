//! In which of its two text formats a scraper wants the metrics.

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What Prometheus has read since its beginnings, and what people and other tools expect.
    Classic,
    /// What a scraper gets that asks for it, as Prometheus itself does.
    OpenMetrics,
}

impl Format {
    /// What a request asks for by the values of its `Accept` headers: OpenMetrics when it is named, in the version that is spoken here, and not liked less than
    /// `text/plain`.
    pub fn asked_by<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut open_metrics, mut plain) = (0.0, 0.0);
        for range in accept.into_iter().flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let (mut weight, mut version) = (1.0, None);
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                match key {
                    // What is no weight is none at all.
                    "q" => weight = value.parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim_matches('"')),
                    _ => {}
                }
            }
            if kind.eq_ignore_ascii_case("text/plain") {
                plain = f64::max(plain, weight);
            } else if kind.eq_ignore_ascii_case("application/openmetrics-text")
                && version.is_none_or(|version| version == "1.0.0")
            {
                open_metrics = f64::max(open_metrics, weight);
            }
        }
        if open_metrics > 0.0 && open_metrics >= plain {
            Self::OpenMetrics
        } else {
            Self::Classic
        }
    }

    /// The value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_names_open_metrics_gets_it_and_everybody_else_the_classic_format() {
        for accept in [
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; version=\"1.0.0\"; charset=utf-8",
            // Prometheus 2.42, and 3.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "text/plain;q=0.5, application/openmetrics-text;q=0.5",
        ] {
            assert_eq!(Format::asked_by([accept]), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=much",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.4,text/plain;q=0.5",
            "application/openmetrics-textile",
            ";,;q=,=;",
        ] {
            assert_eq!(Format::asked_by([accept]), Format::Classic, "{accept}");
        }
        assert_eq!(Format::asked_by([]), Format::Classic);
        let parts = ["text/plain;q=0.1", "application/openmetrics-text;q=0.2"];
        assert_eq!(Format::asked_by(parts), Format::OpenMetrics);
    }
}
