//! Requests of SOCKS clients, good and bad.

#![expect(clippy::unwrap_used, reason = "tests")]

use tokio::io::{DuplexStream, duplex};

use super::*;

/// Sends `bytes` and then nothing; returns what the parser made of it, what it answered, and what it left unread.
async fn ask(bytes: &[u8]) -> (Result<Target, RequestError>, Vec<u8>, Vec<u8>) {
    ask_as(bytes, None).await
}

async fn ask_as(
    bytes: &[u8],
    users: Option<&Users>,
) -> (Result<Target, RequestError>, Vec<u8>, Vec<u8>) {
    let (mut application, mut socket): (DuplexStream, DuplexStream) = duplex(16 * 1024);
    application.write_all(bytes).await.unwrap();
    application.shutdown().await.unwrap();
    let result = read_request(&mut socket, users)
        .await
        .map(|request| request.target);
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
    drop(socket);
    let mut answer = Vec::new();
    application.read_to_end(&mut answer).await.unwrap();
    (result, answer, rest)
}

fn request(command: u8, address: &[u8]) -> Vec<u8> {
    [&[5, 1, 0, 5, command, 0], address].concat()
}

#[tokio::test]
async fn every_kind_of_address_is_read_and_names_stay_names() {
    for (address, expected) in [
        (
            &b"\x01\x0a\x00\x00\x05\x01\xbd"[..],
            Target::Address("10.0.0.5:445".parse().unwrap()),
        ),
        (
            b"\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb",
            Target::Address("[2001:db8::1]:443".parse().unwrap()),
        ),
        (
            b"\x03\x0fgit.example.com\x00\x16",
            Target::Name {
                host: "git.example.com".to_owned(),
                port: 22,
            },
        ),
        (
            b"\x03\x09localhost\x00\x50",
            Target::Name {
                host: "localhost".to_owned(),
                port: 80,
            },
        ),
        (
            b"\x03\x09127.0.0.1\x00\x50",
            Target::Address("127.0.0.1:80".parse().unwrap()),
        ),
        (
            b"\x03\x05[::1]\x00\x50",
            Target::Address("[::1]:80".parse().unwrap()),
        ),
    ] {
        let (result, answer, rest) =
            ask(&request(CONNECT, &[address, b"early data"].concat())).await;
        assert_eq!(result.unwrap(), expected);
        assert_eq!(answer, [5, 0]);
        assert_eq!(rest, b"early data", "not one byte too many is read");
    }
}

#[tokio::test]
async fn no_authentication_is_found_among_other_methods_or_refused() {
    let (result, answer, _) =
        ask(b"\x05\x03\x01\x02\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50").await;
    assert!(result.is_ok());
    assert_eq!(answer, [5, 0]);
    for greeting in [&b"\x05\x02\x01\x02"[..], b"\x05\x00"] {
        let (result, answer, _) = ask(greeting).await;
        assert!(matches!(result, Err(RequestError::Authentication)));
        assert_eq!(answer, [5, 0xff]);
    }
}

#[tokio::test]
async fn other_commands_and_addresses_get_their_reply_codes() {
    let v4 = b"\x01\x0a\x00\x00\x05\x01\xbd";
    for (bytes, code) in [
        (request(2, v4), 7),
        (request(3, v4), 7),
        (request(0, v4), 7),
        (request(CONNECT, b"\x02\x00\x00"), 8),
        (request(CONNECT, b"\x03\x00\x00\x50"), 8),
        (request(CONNECT, b"\x03\x03a b\x00\x50"), 8),
        (request(CONNECT, b"\x03\x02\xff\xfe\x00\x50"), 8),
        (request(CONNECT, b"\x03\x0610.0.1\x00\x50"), 8),
    ] {
        let (result, answer, _) = ask(&bytes).await;
        assert!(
            matches!(result, Err(RequestError::NotSupported(_))),
            "{bytes:?}"
        );
        assert_eq!(answer, [5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0], "{bytes:?}");
    }
}

#[tokio::test]
async fn what_is_not_socks5_gets_no_answer() {
    for bytes in [
        &b"\x06\x01\x00\x50\x7f\x00\x00\x01\x00"[..],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let (result, answer, _) = ask(bytes).await;
        assert!(matches!(result, Err(RequestError::Version(version)) if version == bytes[0]));
        assert!(answer.is_empty());
    }
    let (result, answer, _) = ask(b"\x05\x01\x00\x04\x01\x00\x01\x7f\x00\x00\x01\x00\x50").await;
    assert!(matches!(result, Err(RequestError::Version(4))));
    assert_eq!(answer, [5, 0]);
}

#[tokio::test]
async fn socks4_names_addresses_and_4a_names() {
    for (bytes, expected) in [
        (
            &b"\x04\x01\x01\xbd\x0a\x00\x00\x05me\x00rest"[..],
            Target::Address("10.0.0.5:445".parse().unwrap()),
        ),
        (
            b"\x04\x01\x00\x16\x00\x00\x00\x07\x00git.example.com\x00rest",
            Target::Name {
                host: "git.example.com".to_owned(),
                port: 22,
            },
        ),
    ] {
        let (result, answer, rest) = ask(bytes).await;
        assert_eq!(result.unwrap(), expected);
        assert!(answer.is_empty(), "the answer waits for the target's");
        assert_eq!(rest, b"rest");
    }
    let (result, answer, _) = ask(b"\x04\x02\x00\x16\x0a\x00\x00\x05\x00").await;
    assert!(matches!(result, Err(RequestError::NotSupported(_))));
    assert_eq!(answer, [0, REJECTED_4, 0, 0, 0, 0, 0, 0]);
    let endless = [&b"\x04\x01\x00\x16\x0a\x00\x00\x05"[..], &[b'a'; 300]].concat();
    assert!(matches!(
        ask(&endless).await.0,
        Err(RequestError::Malformed)
    ));
    let mut granted = Vec::new();
    write_reply(&mut granted, Version::Four, Reply::Succeeded, None)
        .await
        .unwrap();
    assert_eq!(granted, [0, GRANTED_4, 0, 0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn where_there_are_users_a_password_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, "wonderland").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let users = Users::load(&[("alice".to_owned(), file)]).unwrap();
    let connect = b"\x05\x01\x00\x01\x0a\x00\x00\x05\x01\xbd";
    let right = [&b"\x05\x02\x00\x02\x01\x05alice\x0awonderland"[..], connect].concat();
    let (result, answer, _) = ask_as(&right, users.as_ref()).await;
    assert!(result.is_ok());
    assert_eq!(answer, [5, 2, 1, 0]);
    let wrong = [&b"\x05\x01\x02\x01\x05alice\x03bob"[..], connect].concat();
    let (result, answer, _) = ask_as(&wrong, users.as_ref()).await;
    assert!(matches!(result, Err(RequestError::Password)));
    assert_eq!(answer, [5, 2, 1, 1]);
    let none = [&b"\x05\x01\x00"[..], connect].concat();
    let (result, answer, _) = ask_as(&none, users.as_ref()).await;
    assert!(matches!(result, Err(RequestError::Authentication)));
    assert_eq!(answer, [5, 0xff]);
    let old = b"\x04\x01\x01\xbd\x0a\x00\x00\x05me\x00";
    let (result, answer, _) = ask_as(old, users.as_ref()).await;
    assert!(matches!(result, Err(RequestError::Version(4))) && answer.is_empty());
    let bad_version = b"\x05\x01\x02\x02\x05alice\x0awonderland";
    let (result, _, _) = ask_as(bad_version, users.as_ref()).await;
    assert!(matches!(result, Err(RequestError::Malformed)));
}

#[tokio::test]
async fn a_request_that_ends_early_is_an_error_at_every_length() {
    let whole = request(CONNECT, b"\x03\x0fgit.example.com\x00\x16");
    for length in 0..whole.len() {
        let (result, _, _) = ask(&whole[..length]).await;
        assert!(
            matches!(result, Err(RequestError::Connection(_))),
            "{length}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_given_up() {
    let (mut application, mut socket) = duplex(64);
    application.write_all(b"\x05\x01").await.unwrap();
    assert!(matches!(
        read_request(&mut socket, None).await,
        Err(RequestError::TimedOut)
    ));
}

#[tokio::test]
async fn replies_carry_the_bound_address() {
    for (bound, expected) in [
        (None, &b"\x05\x00\x00\x01\0\0\0\0\0\0"[..]),
        (
            Some("192.0.2.1:4096"),
            b"\x05\x00\x00\x01\xc0\x00\x02\x01\x10\x00",
        ),
        (
            Some("[2001:db8::1]:1"),
            b"\x05\x00\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x01",
        ),
    ] {
        let mut bytes = Vec::new();
        write_reply(
            &mut bytes,
            Version::Five,
            Reply::Succeeded,
            bound.map(|text| text.parse().unwrap()),
        )
        .await
        .unwrap();
        assert_eq!(bytes, expected);
    }
}

#[test]
fn each_reason_has_its_reply_code() {
    for (reason, code) in [
        (Reason::Policy, 2),
        (Reason::NetworkUnreachable, 3),
        (Reason::HostUnreachable, 4),
        (Reason::NameNotResolved, 4),
        (Reason::Refused, 5),
        (Reason::TimedOut, 6),
        (Reason::BadTarget, 8),
        (Reason::TunnelLost, 1),
        (Reason::Limit, 1),
        (Reason::GoingAway, 1),
        (Reason::Internal, 1),
    ] {
        assert_eq!(Reply::from(reason) as u8, code, "{reason:?}");
    }
}
