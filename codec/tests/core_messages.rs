//! Short messages, requests and answers: what they cost, and that what arrives is what was sent.
#![expect(clippy::unwrap_used, reason = "tests")]

mod core_pair;

use codec::policy::Level;
use core_pair::{End, mix, noise, pair, transfer};

/// A request and its answer, as JSON-RPC has them; each number makes others.
fn exchange(number: u64) -> [Vec<u8>; 2] {
    let random = mix(number);
    let method = ["order.status", "stock.query", "account.get"][(random % 3) as usize];
    let id = random >> 44;
    let request = format!(
        r#"{{"jsonrpc":"2.0","id":{number},"method":"{method}","params":{{"id":{id},"fields":["name","state","changed"],"session":"7f3a21"}}}}"#
    );
    let answer = format!(
        r#"{{"jsonrpc":"2.0","id":{number},"result":{{"id":{id},"name":"customer {}","state":"accepted","currency":"EUR","amount":{}.{:02},"changed":"2026-11-{:02}T{:02}:00:00Z"}}}}"#,
        mix(id) % 90,
        random % 977,
        random % 100,
        random % 28 + 1,
        random % 24,
    );
    [request.into_bytes(), answer.into_bytes()]
}

/// Plain bytes and wire bytes of exchanges `numbers` in one stream.
fn session(
    client: &mut End,
    server: &mut End,
    stream: u64,
    numbers: std::ops::Range<u64>,
) -> (u64, u64) {
    let (mut plain, mut wire) = (0, 0);
    for number in numbers {
        let [request, answer] = exchange(number);
        plain += (request.len() + answer.len()) as u64;
        wire += transfer(client, server, stream, &request, 1 << 17);
        wire += transfer(server, client, stream, &answer, 1 << 17);
    }
    (plain, wire)
}

#[test]
fn messages_gain_from_those_before_them_in_both_directions() {
    let [mut client, mut server] = pair(8 << 20);
    session(&mut client, &mut server, 1, 0..200);
    let (plain, wire) = session(&mut client, &mut server, 1, 200..1200);
    assert!(wire * 2 < plain, "{plain} bytes of messages took {wire}");
}

#[test]
fn the_first_message_of_a_stream_gains_from_those_of_others() {
    let [mut client, mut server] = pair(8 << 20);
    session(&mut client, &mut server, 1, 0..50);
    // A transfer in bulk lies between.
    let bulk = noise(1 << 20, 9);
    transfer(&mut client, &mut server, 3, &bulk, 1 << 17);
    let [request, _] = exchange(1000);
    let first = transfer(&mut client, &mut server, 5, &request, 1 << 17);
    assert!(
        first * 3 < request.len() as u64 * 2,
        "{} bytes took {first}",
        request.len()
    );
}

#[test]
fn messages_of_many_streams_keep_apart() {
    let [mut client, mut server] = pair(8 << 20);
    let streams = 300;
    let (mut plain, mut wire) = (0, 0);
    for round in 0..6 {
        for stream in 0..streams {
            // More streams than places to remember.
            let numbers = round * streams + stream..round * streams + stream + 1;
            let (these, took) = session(&mut client, &mut server, 2 * stream + 1, numbers);
            if round > 0 {
                (plain, wire) = (plain + these, wire + took);
            }
        }
    }
    assert!(wire * 2 < plain, "{plain} bytes of messages took {wire}");
}

#[test]
fn encrypted_messages_cost_little_more_than_their_length() {
    let [mut client, mut server] = pair(8 << 20);
    for number in 0..100 {
        let message = noise(100 + (mix(number) % 3000) as usize, number);
        let wire = transfer(&mut client, &mut server, 1, &message, 1 << 17);
        assert!(
            wire <= message.len() as u64 + 40,
            "{} bytes took {wire}",
            message.len()
        );
    }
    // And what can be read again is found at once, or after a few.
    session(&mut client, &mut server, 1, 0..20);
    let (plain, wire) = session(&mut client, &mut server, 1, 20..40);
    assert!(wire * 2 < plain, "{plain} bytes of messages took {wire}");
}

#[test]
fn repeated_messages_are_copies_where_nothing_is_compressed() {
    let [mut client, mut server] = pair(8 << 20);
    client.level = Level::Off;
    let message: Vec<u8> = (0..20)
        .flat_map(|number| exchange(number).concat())
        .collect();
    let message = message.get(..4000).unwrap();
    let first = transfer(&mut client, &mut server, 1, message, 1 << 17);
    let again = transfer(&mut client, &mut server, 3, message, 1 << 17);
    assert!(first >= 4000 && again < 400, "first {first}, again {again}");
}
