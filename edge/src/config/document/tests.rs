//! How keys are read, and what is said of wrong ones.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

const KEYS: Keys = Keys {
    offered: &["heartbeat", "server", "count", "inner", "many", "names"],
    later: &["links"],
};

fn with_top<T>(
    text: &str,
    read: impl FnOnce(&Section<'_>) -> Result<T, ConfigError>,
) -> Result<T, String> {
    let document = Document::new("client.toml".to_owned(), text);
    let table = document.parse().map_err(|e| e.to_string())?;
    let top = document.top(&table, &KEYS).map_err(|e| e.to_string())?;
    read(&top).map_err(|e| e.to_string())
}

fn error(text: &str) -> String {
    with_top(text, |top| {
        top.section("inner", &KEYS)?;
        top.sections("many", 2, &KEYS)?;
        top.integer("count", 1..=9)?;
        top.list("server", 2, |text| {
            if text == "bad" {
                Err(ValueError::wrong("is bad"))
            } else {
                Ok(())
            }
        })?;
        top.named("names", 2, |name, text| {
            if name == text {
                Err(ValueError::wrong("is its own name"))
            } else {
                Ok(())
            }
        })?;
        top.parse("heartbeat", |_| Ok(()))
    })
    .unwrap_err()
}

#[test]
fn an_unknown_key_names_its_line_section_and_neighbour() {
    assert_eq!(
        error("\n[inner]\nheartbeet = 1\n"),
        "client.toml:3: unknown key \"heartbeet\" in [inner]; did you mean \"heartbeat\"?"
    );
    assert_eq!(
        error("zzz = 1"),
        "client.toml:1: unknown key \"zzz\" in the top of the file; known are heartbeat, server, count, inner, many, names"
    );
    assert_eq!(
        error("[[many]]\n\n[[many]]\nsever = 1"),
        "client.toml:4: unknown key \"sever\" in [[many]]; did you mean \"server\"?"
    );
}

#[test]
fn a_key_of_a_later_version_is_no_unknown_key() {
    assert_eq!(
        error("[inner]\nlinks = 2"),
        "client.toml:2: links in [inner] is not supported by this version"
    );
}

#[test]
fn wrong_values_name_their_line_and_what_is_accepted() {
    assert_eq!(
        error("count = 10"),
        "client.toml:1: count: 10 is out of range; write a whole number from 1 to 9"
    );
    assert_eq!(
        error("count = \"1\""),
        "client.toml:1: count: expected a whole number from 1 to 9, found a string"
    );
    assert_eq!(
        error("server = [\n\"good\",\n\"bad\"]"),
        "client.toml:3: server: is bad"
    );
    assert_eq!(
        error("server = [\"\", \"\", \"\"]"),
        "client.toml:1: server: has 3 entries; 2 is the most"
    );
    assert_eq!(
        error("names = { a = \"b\",\n c = \"c\" }"),
        "client.toml:2: names: is its own name"
    );
    assert_eq!(
        error("names = { a = 1 }"),
        "client.toml:1: names: expected names with strings, like { alice = \"…\" }, found a whole number"
    );
    assert_eq!(
        error("names = { a = \"\", b = \"\", c = \"\" }"),
        "client.toml:1: names: has 3 entries; 2 is the most"
    );
    assert_eq!(
        error("heartbeat = 5"),
        "client.toml:1: heartbeat: expected a string in quotes, found a whole number"
    );
    assert_eq!(
        error("inner = 5"),
        "client.toml:1: inner: expected a section [inner], found a whole number"
    );
    assert_eq!(
        error("count = 1\ncount = 1"),
        "client.toml:2: duplicate key"
    );
}

#[test]
fn a_syntax_error_is_one_line_with_its_place() {
    let message = error("heartbeat = \"5s\"\n[inner");
    assert!(message.starts_with("client.toml:2: "), "{message}");
    assert_eq!(message.lines().count(), 1);
}
