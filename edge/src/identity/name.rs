//! The names of edges, and patterns over them.

use std::fmt;
use std::str::FromStr;

use crate::config::ValueError;

/// The name of an edge: 1 to 63 of `a-z`, `0-9` and `-`, neither first nor last a `-`. It becomes a DNS label in certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeName(String);

/// The name that the server of an authority has, and that no client may take.
pub const SERVER_NAME: &str = "server";

/// The longest name: a DNS label's length (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 63;

impl EdgeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the server of an authority.
    pub fn server() -> Self {
        Self(SERVER_NAME.to_owned())
    }
}

impl FromStr for EdgeName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let good = !text.is_empty()
            && text.len() <= MAX_NAME_BYTES
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if good {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::Wrong(format!(
            "\"{text}\" is not a name; use 1 to {MAX_NAME_BYTES} of a-z, 0-9 and -, with no - at either end, like \"branch-1\""
        )))
    }
}

impl fmt::Display for EdgeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Reads the name of a client, which may be any name but the server's.
///
/// # Errors
/// No name, or [`SERVER_NAME`].
pub fn parse_client_name(text: &str) -> Result<EdgeName, ValueError> {
    if text == SERVER_NAME {
        return Err(ValueError::Wrong(format!(
            "\"{SERVER_NAME}\" is the server's own name; choose another"
        )));
    }
    text.parse()
}

/// A name in which `*` stands for any run of characters, as in `branch-*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamePattern(String);

impl NamePattern {
    /// The pattern that fits every name.
    pub fn every() -> Self {
        Self("*".to_owned())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does the name fit?
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            // The earliest place leaves the most for what follows, so no other needs to be tried.
            let Some((_, after)) = rest.split_once(part) else {
                return false;
            };
            rest = after;
        }
        rest.ends_with(last)
    }
}

impl FromStr for NamePattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let good = !text.is_empty()
            && text.len() <= MAX_NAME_BYTES
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'*');
        if good {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::Wrong(format!(
            "\"{text}\" is not a name or a pattern; write \"branch-1\", \"branch-*\" or \"*\""
        )))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_are_dns_labels_in_lower_case() {
        for text in ["a", "branch-1", "0", &"x".repeat(63)] {
            assert_eq!(text.parse::<EdgeName>().unwrap().as_str(), text);
        }
        for text in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a b",
            "ä",
            "../x",
            &"x".repeat(64),
        ] {
            assert!(text.parse::<EdgeName>().is_err(), "{text}");
        }
        assert!(parse_client_name("server").is_err());
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, fits) in [
            ("*", "branch-1", true),
            ("branch-*", "branch-1", true),
            ("branch-*", "branch-", true),
            ("branch-*", "abranch-1", false),
            ("branch-1", "branch-1", true),
            ("branch-1", "branch-12", false),
            ("*-lab", "a-lab", true),
            ("*-lab", "a-lab-2", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*a", "a", false),
            ("a**a", "aa", true),
        ] {
            assert_eq!(
                pattern.parse::<NamePattern>().unwrap().matches(name),
                fits,
                "{pattern} {name}"
            );
        }
    }
}
