//! Groups of horizontal bars as SVG, readable on light and on dark pages; the same text for the same figures.

use svg::Document;
use svg::node::element::{Group, Line, Rectangle, Style, Text, Title};

use super::table::number as shown;

const WIDTH: f64 = 860.0;
/// Where bars begin, and where the longest ends.
const LEFT: f64 = 230.0;
const RIGHT: f64 = 770.0;
/// First row of the names of the series.
const SERIES_TOP: f64 = 52.0;
const BAR: f64 = 14.0;
const ROW: f64 = 18.0;
const GROUP_GAP: f64 = 12.0;
/// The shortest bar is still seen.
const LEAST: f64 = 1.5;

/// Colours that differ, also for those who see few; then they begin anew.
const COLOURS: [(&str, &str); 8] = [
    ("#0969da", "#4493f8"),
    ("#bf8700", "#d29922"),
    ("#8250df", "#ab7df8"),
    ("#1a7f37", "#3fb950"),
    ("#cf222e", "#f85149"),
    ("#bf3989", "#db61a2"),
    ("#6e7781", "#9198a1"),
    ("#424a53", "#c9d1d9"),
];

/// A chart.
#[derive(Debug)]
pub(super) struct Bars {
    pub(super) title: String,
    pub(super) note: String,
    /// Names of the bars in each group.
    pub(super) series: Vec<String>,
    /// Each with a value for each series that has one.
    pub(super) groups: Vec<(String, Vec<Option<f64>>)>,
    pub(super) scale: Scale,
}

/// How long a bar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// In proportion.
    Linear,
    /// Ten times as much is a fixed step further, from a power of ten below all values on.
    Logarithmic,
}

impl Bars {
    /// `None` when there is nothing to show.
    pub(super) fn draw(&self) -> Option<String> {
        let most = self.values().reduce(f64::max)?;
        let mut document = Document::new()
            .set("width", WIDTH)
            .set("role", "img")
            .add(Title::new(&self.title))
            .add(Style::new(style()))
            .add(text(&self.title, 8.0, 18.0).set("class", "title"))
            .add(text(&self.note, 8.0, 36.0).set("class", "note"));
        let (mut x, mut y) = (8.0, SERIES_TOP);
        for (series, name) in self.series.iter().enumerate() {
            let width =
                34.0 + 6.8 * f64::from(u16::try_from(name.chars().count()).unwrap_or(u16::MAX));
            if x + width > WIDTH {
                (x, y) = (8.0, y + ROW);
            }
            let sample = bar(series, x, y - 9.0, 10.0).set("height", 10);
            document = document.add(sample).add(text(name, x + 14.0, y));
            x += width;
        }
        let top = y + ROW;
        y = top;
        let mut body = Group::new();
        for (name, values) in self
            .groups
            .iter()
            .filter(|(_, values)| values.iter().any(Option::is_some))
        {
            body = body.add(text(name, LEFT - 8.0, y + 11.0).set("text-anchor", "end"));
            for (series, value) in values.iter().enumerate() {
                let Some(value) = *value else { continue };
                let width = (self.part(value, most) * (RIGHT - LEFT)).max(LEAST);
                let peer = self.series.get(series).map_or("", String::as_str);
                let label = Title::new(format!("{name}, {peer}: {}", shown(value)));
                body = body.add(bar(series, LEFT, y, width).add(label));
                body = body.add(text(&shown(value), LEFT + width + 5.0, y + 10.5));
                y += BAR;
            }
            y += GROUP_GAP;
        }
        let axis = Line::new()
            .set("x1", LEFT)
            .set("x2", LEFT)
            .set("y1", number(top - 4.0))
            .set("y2", number(y - GROUP_GAP + 2.0));
        let document = document.set("viewBox", format!("0 0 {WIDTH} {}", number(y + 8.0)));
        Some(document.add(axis).add(body).to_string() + "\n")
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.groups
            .iter()
            .flat_map(|(_, values)| values.iter().flatten().copied())
    }

    fn part(&self, value: f64, most: f64) -> f64 {
        match self.scale {
            Scale::Linear => value / most.max(f64::MIN_POSITIVE),
            Scale::Logarithmic => {
                let least = self.values().fold(most, f64::min).max(f64::MIN_POSITIVE);
                let floor = 10_f64.powf(least.log10().floor());
                (value / floor).log10() / (most / floor).log10().max(f64::MIN_POSITIVE)
            }
        }
    }
}

fn style() -> String {
    let mut light = String::new();
    let mut dark = String::new();
    for (series, (on_light, on_dark)) in COLOURS.iter().enumerate() {
        light += &format!(".s{series} {{ fill: {on_light} }} ");
        dark += &format!(".s{series} {{ fill: {on_dark} }} ");
    }
    format!(
        "text {{ font: 12px system-ui, sans-serif; fill: #24292f }}\n.title {{ font-size: 15px; font-weight: 600 }}\n.note {{ fill: #57606a }}\n\
         line {{ stroke: #8c959f; stroke-opacity: .5 }}\n{light}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} .note {{ fill: #9198a1 }} {dark}}}"
    )
}

fn bar(series: usize, x: f64, y: f64, width: f64) -> Rectangle {
    Rectangle::new()
        .set("class", format!("s{}", series % COLOURS.len()))
        .set("x", number(x))
        .set("y", number(y))
        .set("width", number(width))
        .set("height", BAR - 2.0)
}

fn text(words: &str, x: f64, y: f64) -> Text {
    Text::new(words).set("x", number(x)).set("y", number(y))
}

/// The same digits on every machine.
fn number(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn bars(values: Vec<Option<f64>>, scale: Scale) -> Bars {
        Bars {
            title: "t".to_owned(),
            note: "n".to_owned(),
            series: vec!["a".to_owned(), "b".to_owned()],
            groups: vec![("g".to_owned(), values)],
            scale,
        }
    }

    #[test]
    fn what_has_no_value_has_no_bar() {
        assert_eq!(bars(vec![None, None], Scale::Linear).draw(), None);
        let one = bars(vec![None, Some(4.0)], Scale::Linear).draw().unwrap();
        assert!(
            one.contains("g, b: 4.00") && !one.contains("g, a:"),
            "{one}"
        );
    }

    #[test]
    fn the_longest_bar_fills_the_width_and_steps_of_ten_are_alike() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            assert!(
                (bars(vec![Some(1.0), Some(100.0)], scale).part(100.0, 100.0) - 1.0).abs() < 1e-9
            );
        }
        let logarithmic = bars(vec![Some(1.0), Some(100.0)], Scale::Logarithmic);
        assert!((logarithmic.part(10.0, 100.0) - 0.5).abs() < 1e-9);
        assert!((bars(vec![Some(1.0)], Scale::Linear).part(50.0, 100.0) - 0.5).abs() < 1e-9);
    }
}
