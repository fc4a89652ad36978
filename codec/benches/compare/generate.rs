//! Corpora that need no package: the same bytes in every run.

use std::fmt::Write;

use crate::core_pair::mix;

/// Numbers that look random, in an order that the seed fixes.
pub struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self {
            seed: seed << 40,
            thrown: 0,
        }
    }

    pub fn throw(&mut self) -> u64 {
        self.thrown += 1;
        mix(self.seed ^ self.thrown)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.throw() % bound
    }

    pub fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let at = self.below(from.len() as u64);
        from[usize::try_from(at).unwrap_or(0)]
    }
}

const FIRST_NAMES: [&str; 24] = [
    "Ada", "Ben", "Carla", "Dmitri", "Edith", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kaito",
    "Lena", "Miguel", "Nadia", "Oskar", "Priya", "Quentin", "Rosa", "Samir", "Tilda", "Umut",
    "Vera", "Wanda", "Yusuf",
];
const LAST_NAMES: [&str; 24] = [
    "Abel", "Berger", "Costa", "Dahl", "Ekberg", "Fischer", "Garcia", "Haas", "Ivanov", "Jensen",
    "Kimura", "Lopez", "Meier", "Novak", "Okafor", "Petit", "Quinn", "Rossi", "Silva", "Tanaka",
    "Urban", "Vogel", "Weiss", "Zhou",
];
const CITIES: [&str; 12] = [
    "Aachen", "Bergen", "Cork", "Dresden", "Evora", "Faro", "Ghent", "Haarlem", "Izmir", "Kiruna",
    "Lyon", "Porto",
];
const STATES: [&str; 5] = ["open", "paid", "packed", "shipped", "returned"];
const SERVICES: [&str; 6] = [
    "checkout",
    "inventory",
    "billing",
    "search",
    "sessions",
    "mailer",
];
const WORDS: [&str; 16] = [
    "request",
    "upstream",
    "timeout",
    "retry",
    "accepted",
    "cache",
    "miss",
    "token",
    "expired",
    "user",
    "order",
    "line",
    "connection",
    "closed",
    "queue",
    "finished",
];

/// Rows of a table as a dump has them, one INSERT a row, up to `bytes`; before, and after 2 % of the rows were changed, one in 400 deleted and as many
/// put in.
pub fn sql(bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let mut dice = Dice::new(1);
    let (mut before, mut after) = (String::new(), String::new());
    let mut id = 100_000_u64;
    let head = "-- a dump\nSET client_encoding = 'UTF8';\nCREATE TABLE orders (id bigint PRIMARY KEY, customer text, mail text, city text, state text, cents bigint, token char(24), placed timestamp);\n";
    before.push_str(head);
    after.push_str(head);
    while before.len() < bytes {
        id += 1 + dice.below(3);
        let mut row = Row::new(id, &mut dice);
        row.write(&mut before);
        match dice.below(400) {
            0..8 => row.change(&mut dice),
            8 => continue,
            9 => {
                id += 1;
                Row::new(id, &mut dice).write(&mut after);
            }
            _ => (),
        }
        row.write(&mut after);
    }
    (before.into_bytes(), after.into_bytes())
}

struct Row {
    id: u64,
    first: &'static str,
    last: &'static str,
    city: &'static str,
    state: &'static str,
    cents: u64,
    token: [u64; 2],
    placed: u64,
}

impl Row {
    fn new(id: u64, dice: &mut Dice) -> Self {
        Self {
            id,
            first: dice.pick(&FIRST_NAMES),
            last: dice.pick(&LAST_NAMES),
            city: dice.pick(&CITIES),
            state: dice.pick(&STATES),
            cents: dice.below(500_000),
            token: [dice.throw(), dice.throw()],
            placed: dice.below(86_400 * 365),
        }
    }

    fn change(&mut self, dice: &mut Dice) {
        self.state = dice.pick(&STATES);
        self.cents = dice.below(500_000);
        self.placed += dice.below(86_400);
    }

    fn write(&self, out: &mut String) {
        let Self {
            id,
            first,
            last,
            city,
            state,
            cents,
            token: [high, low],
            placed,
        } = self;
        let (low, time) = (low >> 32, clock(*placed));
        let _ = writeln!(
            out,
            "INSERT INTO orders VALUES ({id},'{first} {last}','{first}.{last}{}@example.com','{city}','{state}',{cents},'{high:016x}{low:08x}','{time}');",
            high % 900
        );
    }
}

/// Seconds as a time of a year that has months of 30 days, which nobody here minds.
fn clock(seconds: u64) -> String {
    let (days, left) = (seconds / 86_400, seconds % 86_400);
    format!(
        "2026-{:02}-{:02} {:02}:{:02}:{:02}",
        days / 30 % 12 + 1,
        days % 30 + 1,
        left / 3600,
        left / 60 % 60,
        left % 60
    )
}

/// A service's log, one JSON object a line, up to `bytes`.
pub fn logs(bytes: usize) -> Vec<u8> {
    let mut dice = Dice::new(2);
    let mut out = String::new();
    let mut millis = 0;
    while out.len() < bytes {
        millis += dice.below(40);
        let service = dice.pick(&SERVICES);
        let _ = write!(
            out,
            r#"{{"time":"{}.{:03}Z","level":"{}","service":"{service}","host":"{service}-{}","trace":"{:016x}","method":"{}","path":"/api/{service}/{}","status":{},"duration_ms":{}.{},"bytes":{},"message":""#,
            clock(millis / 1000).replace(' ', "T"),
            millis % 1000,
            dice.pick(&["info", "info", "info", "info", "warn", "debug"]),
            dice.below(20),
            dice.throw(),
            dice.pick(&["GET", "GET", "GET", "POST", "PUT"]),
            dice.below(100_000),
            dice.pick(&["200", "200", "200", "201", "204", "304", "404", "500"]),
            dice.below(300),
            dice.below(10),
            dice.below(60_000),
        );
        for word in 0..3 + dice.below(6) {
            out.push_str(if word > 0 { " " } else { "" });
            out.push_str(dice.pick(&WORDS));
        }
        out.push_str("\"}\n");
    }
    out.into_bytes()
}

/// Who says a message of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// A session of `pairs` requests and answers as JSON-RPC has them, 100 bytes to 4 KiB each: a client that looks things up, changes some, and asks for lists.
pub fn session(pairs: usize) -> Vec<(Side, Vec<u8>)> {
    let mut dice = Dice::new(3);
    let mut messages = Vec::with_capacity(2 * pairs);
    for id in 0..pairs {
        let order = 100_000 + dice.below(50_000);
        let (request, answer) = match dice.below(10) {
            0..5 => (
                format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"method":"orders.get","params":{{"order":{order},"fields":["customer","state","cents"],"session":"5b0c9f6e2d7a4418"}}}}"#
                ),
                format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"result":{}}}"#,
                    object(order, &mut dice)
                ),
            ),
            5..8 => (
                format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"method":"orders.update","params":{{"order":{order},"state":"{}","note":"{} {} {}","session":"5b0c9f6e2d7a4418"}}}}"#,
                    dice.pick(&STATES),
                    dice.pick(&WORDS),
                    dice.pick(&WORDS),
                    dice.pick(&WORDS)
                ),
                format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"result":{{"changed":1,"version":{},"at":"{}"}}}}"#,
                    dice.below(1000),
                    clock(dice.below(86_400 * 365))
                ),
            ),
            8 => {
                let count = 2 + dice.below(16);
                let rows: Vec<String> =
                    (0..count).map(|at| object(order + at, &mut dice)).collect();
                (
                    format!(
                        r#"{{"jsonrpc":"2.0","id":{id},"method":"orders.list","params":{{"city":"{}","from":{order},"limit":{count},"session":"5b0c9f6e2d7a4418"}}}}"#,
                        dice.pick(&CITIES)
                    ),
                    format!(
                        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"count":{count},"rows":[{}]}}}}"#,
                        rows.join(",")
                    ),
                )
            }
            _ => (
                format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"method":"customers.find","params":{{"name":"{} {}","session":"5b0c9f6e2d7a4418"}}}}"#,
                    dice.pick(&FIRST_NAMES),
                    dice.pick(&LAST_NAMES)
                ),
                format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32004,"message":"no such customer","data":{{"trace":"{:016x}"}}}}}}"#,
                    dice.throw()
                ),
            ),
        };
        messages.push((Side::Client, request.into_bytes()));
        messages.push((Side::Server, answer.into_bytes()));
    }
    messages
}

/// An order as the session's answers show it.
fn object(order: u64, dice: &mut Dice) -> String {
    let (first, last) = (dice.pick(&FIRST_NAMES), dice.pick(&LAST_NAMES));
    format!(
        r#"{{"order":{order},"customer":{{"name":"{first} {last}","mail":"{first}.{last}{}@example.com"}},"city":"{}","state":"{}","cents":{},"token":"{:016x}","placed":"{}"}}"#,
        dice.below(900),
        dice.pick(&CITIES),
        dice.pick(&STATES),
        dice.below(500_000),
        dice.throw(),
        clock(dice.below(86_400 * 365))
    )
}

/// What fills a history: 64 characters that all are equally likely, so that it shrinks by a quarter, has anchors as densely as text has, and repeats nothing.
pub fn filler(bytes: usize, seed: u64) -> Vec<u8> {
    const CHARACTERS: &[u8; 64] =
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut dice = Dice::new(seed);
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        let eight = dice.throw().to_le_bytes();
        out.extend(eight.map(|byte| CHARACTERS[usize::from(byte & 63)]));
    }
    out.truncate(bytes);
    out
}
