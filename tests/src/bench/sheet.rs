//! Rows and columns as text, for both places where they are read.

use std::fmt::Write;

/// Where a table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    /// A terminal.
    Terminal,
    /// A page of documentation, in Markdown.
    Page,
}

/// A table: its head, and rows of as many cells.
#[derive(Debug)]
pub(super) struct Sheet {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    /// The columns from this one on hold numbers.
    numbers_from: usize,
}

impl Medium {
    /// A title above tables.
    pub(super) fn title(self, title: &str) -> String {
        match self {
            Self::Terminal => format!("\n{title}\n"),
            Self::Page => format!("\n### {title}\n\n"),
        }
    }

    /// Sentences, each on a line of its own.
    pub(super) fn list(self, title: &str, sentences: &[String]) -> String {
        if sentences.is_empty() {
            return String::new();
        }
        let (gap, mark) = match self {
            Self::Terminal => ("", "  "),
            Self::Page => ("\n", "- "),
        };
        let mut text = format!("\n{title}:\n{gap}");
        for sentence in sentences {
            let _ = writeln!(text, "{mark}{sentence}");
        }
        text
    }
}

impl Sheet {
    pub(super) fn new(head: Vec<String>, numbers_from: usize) -> Self {
        Self {
            head,
            rows: Vec::new(),
            numbers_from,
        }
    }

    pub(super) fn add(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    pub(super) fn write(&self, medium: Medium) -> String {
        let mut text = String::new();
        let all = std::iter::once(&self.head).chain(&self.rows);
        for (number, row) in all.enumerate() {
            match medium {
                Medium::Terminal => text += self.aligned(row).trim_end(),
                Medium::Page => {
                    text.push('|');
                    for cell in row {
                        let _ = write!(text, " {cell}{}|", if cell.is_empty() { "" } else { " " });
                    }
                    if number == 0 {
                        text += "\n|";
                        for column in 0..self.head.len() {
                            let has_numbers = column >= self.numbers_from;
                            text += if has_numbers { "---:|" } else { "---|" };
                        }
                    }
                }
            }
            text.push('\n');
        }
        text
    }

    fn aligned(&self, row: &[String]) -> String {
        let mut text = String::new();
        for (column, cell) in row.iter().enumerate() {
            let all = std::iter::once(&self.head).chain(&self.rows);
            let lengths = all.filter_map(|row| Some(row.get(column)?.chars().count()));
            let width = lengths.max().unwrap_or_default();
            let _ = if column >= self.numbers_from {
                write!(text, "{cell:>width$}  ")
            } else {
                write!(text, "{cell:width$}  ")
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_media_show_the_same_cells() {
        let words = |words: [&str; 2]| words.map(str::to_owned).to_vec();
        let mut sheet = Sheet::new(words(["", "peer"]), 1);
        sheet.add(words(["long name ≥", "1"]));
        sheet.add(words(["b", "22"]));
        let page = "| | peer |\n|---|---:|\n| long name ≥ | 1 |\n| b | 22 |\n";
        assert_eq!(sheet.write(Medium::Page), page);
        let terminal = "             peer\nlong name ≥     1\nb              22\n";
        assert_eq!(sheet.write(Medium::Terminal), terminal);
    }
}
