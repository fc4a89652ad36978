//! What can be wrong with a configuration, each as one line that says what to do.

use std::fmt;
use std::path::PathBuf;

/// Where in a configuration something stands: a file and, where it is known, a line counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as the operator named it, or the flag that the value came from.
    pub source: String,
    /// The line, counted from 1.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(formatter, "{}:{line}", self.source),
            None => formatter.write_str(&self.source),
        }
    }
}

/// A configuration that cannot be used. `Display` is one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}: {cause}; name another file with --config", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is larger than [`super::MAX_FILE_BYTES`].
    #[error("{} is larger than {limit_bytes} bytes and cannot be a configuration", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// The file is not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// Where the parser stopped.
        place: Place,
        /// What it found.
        message: String,
    },
    /// A key that no version knows.
    #[error("{place}: unknown key \"{key}\" in {section}; {advice}")]
    UnknownKey {
        /// Where the key stands.
        place: Place,
        /// The key.
        key: String,
        /// The section, as `[tunnel]`, or `the top of the file`.
        section: String,
        /// The nearest key, or the list of keys.
        advice: String,
    },
    /// A key or value that is part of the design, but not of this version.
    #[error("{place}: {what} is not supported by this version")]
    NotSupported {
        /// Where it stands.
        place: Place,
        /// The key or the value.
        what: String,
    },
    /// A value that does not fit its key.
    #[error("{place}: {key}: {message}")]
    Value {
        /// Where the value stands.
        place: Place,
        /// The key, with its section.
        key: String,
        /// What is wrong and what is accepted.
        message: String,
    },
    /// A key that must be given and is not.
    #[error("{place}: {section} needs {key}; {advice}")]
    Missing {
        /// The file, and the section's line where it has one.
        place: Place,
        /// The section.
        section: String,
        /// The key.
        key: &'static str,
        /// An example.
        advice: &'static str,
    },
}

/// Why a text is no value of some type; the place is added by whoever knows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The text is wrong; the message says what is accepted.
    #[error("{0}")]
    Wrong(String),
    /// The text is right, but what it asks for belongs to a later version.
    #[error("{0} is not supported by this version")]
    NotSupported(String),
}

impl ValueError {
    /// A [`ValueError::Wrong`] of anything that reads as text.
    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        Self::Wrong(message.into())
    }
}
