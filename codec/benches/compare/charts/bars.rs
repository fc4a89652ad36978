//! A chart of groups of horizontal bars.

use svg::Document;
use svg::node::element::{Group, Line, Rectangle, Style, Text, Title};

/// In pixels, as long as a page does not say otherwise.
const WIDTH: f64 = 860.0;
/// Where bars begin and end.
const LEFT: f64 = 210.0;
const RIGHT: f64 = 760.0;
const TOP: f64 = 62.0;
const BAR: f64 = 14.0;
const GROUP_GAP: f64 = 12.0;

const STYLE: &str = "\
    text { font: 12px system-ui, sans-serif; fill: #24292f }\n\
    .title { font-size: 15px; font-weight: 600 }\n\
    .note { fill: #57606a }\n\
    line { stroke: #8c959f; stroke-opacity: .5 }\n\
    .s0 { fill: #0969da } .s1 { fill: #bf8700 } .s2 { fill: #8250df } .s3 { fill: #1a7f37 } .s4 { fill: #cf222e } .s5 { fill: #6e7781 }\n\
    @media (prefers-color-scheme: dark) {\n\
        text { fill: #e6edf3 } .note { fill: #9198a1 }\n\
        .s0 { fill: #4493f8 } .s1 { fill: #d29922 } .s2 { fill: #ab7df8 } .s3 { fill: #3fb950 } .s4 { fill: #f85149 } .s5 { fill: #9198a1 }\n\
    }";

/// What is shown.
pub struct Chart {
    pub file: &'static str,
    pub title: &'static str,
    pub note: &'static str,
    pub series: Vec<String>,
    /// Each with a value for each series that has one.
    pub groups: Vec<(String, Vec<Option<f64>>)>,
    /// Ten times as much is a fixed step further, from a power of ten below all values on; otherwise bars begin at 0.
    pub logarithmic: bool,
    pub digits: usize,
}

impl Chart {
    /// As SVG; the longest bar fills the width.
    pub fn draw(&self) -> Document {
        let values = || {
            self.groups
                .iter()
                .flat_map(|(_, values)| values.iter().flatten().copied())
        };
        let most = values().fold(f64::MIN_POSITIVE, f64::max);
        // A power of ten below all of them.
        let floor = 10_f64.powf(values().fold(most, f64::min).log10().floor());
        let scale = |value: f64| {
            let part = if self.logarithmic {
                (value / floor).log10() / (most / floor).log10().max(f64::MIN_POSITIVE)
            } else {
                value / most
            };
            // Even the least is seen.
            (part * (RIGHT - LEFT)).max(1.5)
        };
        let mut y = TOP;
        let mut body = Group::new();
        for (name, values) in &self.groups {
            body = body.add(text(name, LEFT - 8.0, y + 11.0).set("text-anchor", "end"));
            for (series, value) in values.iter().enumerate() {
                let Some(value) = value else { continue };
                let width = scale(*value);
                let shown = if *value >= 100.0 {
                    format!("{value:.0}")
                } else {
                    format!("{value:.0$}", self.digits)
                };
                let bar = Rectangle::new()
                    .set("class", format!("s{series}"))
                    .set("x", LEFT)
                    .set("y", number(y))
                    .set("width", number(width))
                    .set("height", BAR - 2.0);
                let label = format!("{name}, {}: {shown}", self.series[series]);
                body = body.add(bar.add(Title::new(label)));
                body = body.add(text(&shown, LEFT + width + 5.0, y + 10.5));
                y += BAR;
            }
            y += GROUP_GAP;
        }
        let axis = Line::new()
            .set("x1", LEFT)
            .set("x2", LEFT)
            .set("y1", TOP - 4.0)
            .set("y2", number(y - GROUP_GAP + 2.0));
        let mut document = Document::new()
            .set("viewBox", format!("0 0 {WIDTH} {}", number(y + 8.0)))
            .set("width", WIDTH)
            .set("role", "img")
            .add(Title::new(self.title))
            .add(Style::new(STYLE))
            .add(text(self.title, 8.0, 18.0).set("class", "title"))
            .add(text(self.note, 8.0, 36.0).set("class", "note"));
        let mut x = 8.0;
        for (series, name) in self.series.iter().enumerate() {
            let sample = Rectangle::new()
                .set("class", format!("s{series}"))
                .set("x", number(x))
                .set("y", 43)
                .set("width", 10)
                .set("height", 10);
            document = document.add(sample).add(text(name, x + 14.0, 52.0));
            x += 34.0 + 6.8 * name.chars().count() as f64;
        }
        document.add(axis).add(body)
    }
}

fn text(words: &str, x: f64, y: f64) -> Text {
    Text::new(words).set("x", number(x)).set("y", number(y))
}

/// The same digits on every machine.
fn number(value: f64) -> String {
    format!("{value:.1}")
}
