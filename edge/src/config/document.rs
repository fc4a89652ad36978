//! Reads a TOML document key by key, remembering where each stands, so that every error names its line.
//!
//! serde's `deny_unknown_fields` knows neither the line of an unknown key in a nested table nor the nearest right one, and cannot tell
//! a key of a later version from a slip; hence this walk over the parsed document.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place, ValueError};

/// The text of one configuration and what to call it in errors.
pub(crate) struct Document<'a> {
    source: String,
    text: &'a str,
}

/// The keys that a section knows.
pub(crate) struct Keys {
    /// Keys of this version.
    pub(crate) offered: &'static [&'static str],
    /// Keys of the design that work in no version yet.
    pub(crate) later: &'static [&'static str],
}

/// One table of the document, whose keys are all known.
pub(crate) struct Section<'a> {
    document: &'a Document<'a>,
    /// `[tunnel]`, or empty for the top.
    label: String,
    line: Option<usize>,
    table: &'a DeTable<'a>,
}

impl<'a> Document<'a> {
    /// Gives a text its name.
    pub(crate) fn new(source: String, text: &'a str) -> Self {
        Self { source, text }
    }

    /// Parses the text as TOML.
    pub(crate) fn parse(&self) -> Result<Spanned<DeTable<'a>>, ConfigError> {
        DeTable::parse(self.text).map_err(|error| ConfigError::Syntax {
            place: self.place(error.span().map(|span| span.start)),
            message: error.message().lines().collect::<Vec<_>>().join(", "),
        })
    }

    /// The top of a parsed document.
    pub(crate) fn top(
        &'a self,
        table: &'a Spanned<DeTable<'a>>,
        keys: &Keys,
    ) -> Result<Section<'a>, ConfigError> {
        Section::open(self, String::new(), None, table.get_ref(), keys)
    }

    fn place(&self, offset: Option<usize>) -> Place {
        let line = offset.map(|offset| {
            let before = self
                .text
                .as_bytes()
                .get(..offset)
                .unwrap_or(self.text.as_bytes());
            before.iter().filter(|byte| **byte == b'\n').count() + 1
        });
        Place {
            source: self.source.clone(),
            line,
        }
    }
}

impl<'a> Section<'a> {
    fn open(
        document: &'a Document<'a>,
        label: String,
        line: Option<usize>,
        table: &'a DeTable<'a>,
        keys: &Keys,
    ) -> Result<Self, ConfigError> {
        let section = Self {
            document,
            label,
            line,
            table,
        };
        for (key, _) in table {
            let name = key.get_ref().as_ref();
            if keys.offered.contains(&name) {
                continue;
            }
            let place = document.place(Some(key.span().start));
            if keys.later.contains(&name) {
                return Err(ConfigError::NotSupported {
                    place,
                    what: section.key_name(name),
                });
            }
            return Err(ConfigError::UnknownKey {
                place,
                key: name.to_owned(),
                section: section.name(),
                advice: advice(name, keys.offered),
            });
        }
        Ok(section)
    }

    /// Is the key there?
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A string, read by `parse`.
    pub(crate) fn parse<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.table.get(key) else {
            return Ok(None);
        };
        let text = value
            .get_ref()
            .as_str()
            .ok_or_else(|| self.wrong_type(key, value, "a string in quotes"))?;
        parse(text)
            .map(Some)
            .map_err(|error| self.refused(key, value, error))
    }

    /// A string that must be there.
    pub(crate) fn require<T>(
        &self,
        key: &'static str,
        advice: &'static str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Result<T, ConfigError> {
        self.parse(key, parse)?
            .ok_or_else(|| self.missing(key, advice))
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.table.get(key) else {
            return Ok(None);
        };
        match value.get_ref().as_bool() {
            Some(boolean) => Ok(Some(boolean)),
            None => Err(self.wrong_type(key, value, "true or false")),
        }
    }

    /// A whole number within bounds.
    pub(crate) fn integer(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.table.get(key) else {
            return Ok(None);
        };
        let expected = || format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let number = value
            .get_ref()
            .as_integer()
            .ok_or_else(|| self.wrong_type(key, value, &expected()))?;
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if bounds.contains(&number) => Ok(Some(number)),
            _ => Err(self.refused(
                key,
                value,
                ValueError::wrong(format!("{number} is out of range; write {}", expected())),
            )),
        }
    }

    /// A string or a whole number, both handed over as text.
    pub(crate) fn parse_string_or_integer<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Result<Option<T>, ConfigError> {
        match self.table.get(key).map(|value| (value, value.get_ref())) {
            Some((value, DeValue::Integer(number))) if number.radix() == 10 => {
                parse(number.as_str())
                    .map(Some)
                    .map_err(|error| self.refused(key, value, error))
            }
            _ => self.parse(key, parse),
        }
    }

    /// A list of at most `most` strings, each read by `parse`; empty when the key is absent.
    pub(crate) fn list<T>(
        &self,
        key: &str,
        most: usize,
        parse: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(value) = self.table.get(key) else {
            return Ok(Vec::new());
        };
        let expected = "a list of strings, like [\"…\"]";
        let array = value
            .get_ref()
            .as_array()
            .ok_or_else(|| self.wrong_type(key, value, expected))?;
        if array.len() > most {
            return Err(self.refused(
                key,
                value,
                ValueError::wrong(format!("has {} entries; {most} is the most", array.len())),
            ));
        }
        array
            .iter()
            .map(|entry| {
                let text = entry
                    .get_ref()
                    .as_str()
                    .ok_or_else(|| self.wrong_type(key, entry, expected))?;
                parse(text).map_err(|error| self.refused(key, entry, error))
            })
            .collect()
    }

    /// At most `most` pairs of a name and a string, `key = { name = "…" }`, each read by `parse`, in the order of their names; empty when the key is absent.
    pub(crate) fn named<T>(
        &self,
        key: &str,
        most: usize,
        parse: impl Fn(&str, &str) -> Result<T, ValueError>,
    ) -> Result<Vec<(String, T)>, ConfigError> {
        let Some(value) = self.table.get(key) else {
            return Ok(Vec::new());
        };
        let expected = "names with strings, like { alice = \"…\" }";
        let table = value
            .get_ref()
            .as_table()
            .ok_or_else(|| self.wrong_type(key, value, expected))?;
        if table.len() > most {
            return Err(self.refused(
                key,
                value,
                ValueError::wrong(format!("has {} entries; {most} is the most", table.len())),
            ));
        }
        table
            .iter()
            .map(|(name, entry)| {
                let text = entry
                    .get_ref()
                    .as_str()
                    .ok_or_else(|| self.wrong_type(key, entry, expected))?;
                let name = name.get_ref().as_ref();
                let read = parse(name, text).map_err(|error| self.refused(key, entry, error))?;
                Ok((name.to_owned(), read))
            })
            .collect()
    }

    /// A table `[key]`.
    pub(crate) fn section(
        &self,
        key: &str,
        keys: &Keys,
    ) -> Result<Option<Section<'a>>, ConfigError> {
        let Some((name, value)) = self.table.get_key_value(key) else {
            return Ok(None);
        };
        let table = value
            .get_ref()
            .as_table()
            .ok_or_else(|| self.wrong_type(key, value, &format!("a section [{key}]")))?;
        let line = self.document.place(Some(name.span().start)).line;
        Section::open(self.document, format!("[{key}]"), line, table, keys).map(Some)
    }

    /// At most `most` tables `[[key]]`.
    pub(crate) fn sections(
        &self,
        key: &str,
        most: usize,
        keys: &Keys,
    ) -> Result<Vec<Section<'a>>, ConfigError> {
        let Some(value) = self.table.get(key) else {
            return Ok(Vec::new());
        };
        let expected = format!("sections [[{key}]]");
        let array = value
            .get_ref()
            .as_array()
            .ok_or_else(|| self.wrong_type(key, value, &expected))?;
        if array.len() > most {
            return Err(self.refused(
                key,
                value,
                ValueError::wrong(format!(
                    "there are {} [[{key}]]; {most} is the most",
                    array.len()
                )),
            ));
        }
        array
            .iter()
            .map(|entry| {
                let table = entry
                    .get_ref()
                    .as_table()
                    .ok_or_else(|| self.wrong_type(key, entry, &expected))?;
                let line = self.document.place(Some(entry.span().start)).line;
                Section::open(self.document, format!("[[{key}]]"), line, table, keys)
            })
            .collect()
    }

    /// The error of a value that is wrong together with others.
    pub(crate) fn conflict(&self, key: &str, message: impl Into<String>) -> ConfigError {
        match self.table.get(key) {
            Some(value) => self.refused(key, value, ValueError::wrong(message)),
            None => ConfigError::Value {
                place: self.place(),
                key: self.key_name(key),
                message: message.into(),
            },
        }
    }

    /// The error of a key that is not there.
    pub(crate) fn missing(&self, key: &'static str, advice: &'static str) -> ConfigError {
        ConfigError::Missing {
            place: self.place(),
            section: self.name(),
            key,
            advice,
        }
    }

    fn refused(&self, key: &str, value: &Spanned<DeValue<'_>>, error: ValueError) -> ConfigError {
        let place = self.document.place(Some(value.span().start));
        match error {
            ValueError::Wrong(message) => ConfigError::Value {
                place,
                key: self.key_name(key),
                message,
            },
            ValueError::NotSupported(what) => ConfigError::NotSupported {
                place,
                what: format!("{}: {what}", self.key_name(key)),
            },
        }
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) -> ConfigError {
        self.refused(
            key,
            value,
            ValueError::wrong(format!(
                "expected {expected}, found {}",
                type_name(value.get_ref())
            )),
        )
    }

    fn place(&self) -> Place {
        Place {
            source: self.document.source.clone(),
            line: self.line,
        }
    }

    fn name(&self) -> String {
        if self.label.is_empty() {
            "the top of the file".to_owned()
        } else {
            self.label.clone()
        }
    }

    fn key_name(&self, key: &str) -> String {
        if self.label.is_empty() {
            key.to_owned()
        } else {
            format!("{key} in {}", self.label)
        }
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// Names the nearest key, or all of them when none is near.
fn advice(key: &str, offered: &[&str]) -> String {
    // Below this similarity a suggestion misleads more than it helps; "heartbeet" and "heartbeat" have 0.96, "sever" and "server" 0.96.
    const LEAST_SIMILARITY: f64 = 0.75;
    let nearest = offered
        .iter()
        .map(|candidate| (strsim::jaro_winkler(key, candidate), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((similarity, candidate)) if similarity >= LEAST_SIMILARITY => {
            format!("did you mean \"{candidate}\"?")
        }
        _ => format!("known are {}", offered.join(", ")),
    }
}

#[cfg(test)]
mod tests;
