//! A browser's login: a cookie that says until when it holds, and proves by a MAC under the token that this endpoint has said so. It outlives a restart, and
//! ends with the token.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Token;

/// A working day; then the token is asked for again.
const LIFETIME_SECONDS: u64 = 12 * 60 * 60;

/// A clock that is set right may go back so far and nobody is logged out; a login from further ahead does not hold, or it would for years after a jump.
const CLOCK_SLACK_SECONDS: u64 = 5 * 60;

/// The value of the Set-Cookie header that logs in.
pub(super) fn cookie(token: &Token) -> String {
    let until = now_seconds().saturating_add(LIFETIME_SECONDS);
    format!(
        "{}={until}.{}; Path=/; Max-Age={LIFETIME_SECONDS}; HttpOnly; SameSite=Strict",
        name(token),
        URL_SAFE_NO_PAD.encode(mac(token, &until.to_string()))
    )
}

/// Does one of the cookies prove a login that still holds?
pub(super) fn is_in(headers: &HeaderMap, token: &Token) -> bool {
    is_in_at(headers, token, now_seconds())
}

fn is_in_at(headers: &HeaderMap, token: &Token, now_seconds: u64) -> bool {
    let name = name(token);
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .filter(|(known, _)| *known == name)
        .any(|(_, value)| holds(value, token, now_seconds))
}

fn holds(value: &str, token: &Token, now_seconds: u64) -> bool {
    let Some((until, mac)) = value.split_once('.') else {
        return false;
    };
    let Ok(mac) = URL_SAFE_NO_PAD.decode(mac) else {
        return false;
    };
    hmac::verify(&key(token), &message(until), &mac).is_ok()
        && until.parse::<u64>().is_ok_and(|until| {
            let left_seconds = until.saturating_sub(now_seconds);
            (1..=LIFETIME_SECONDS + CLOCK_SLACK_SECONDS).contains(&left_seconds)
        })
}

/// Cookies of one host do not know ports, so two edges on it need two names.
fn name(token: &Token) -> String {
    let tag = hmac::sign(&key(token), b"the name of the cookie");
    format!(
        "wanproxy-{}",
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..6).unwrap_or_default())
    )
}

fn mac(token: &Token, until: &str) -> hmac::Tag {
    hmac::sign(&key(token), &message(until))
}

fn message(until: &str) -> Vec<u8> {
    [b"logged in until ", until.as_bytes()].concat()
}

fn key(token: &Token) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, token.bytes())
}

fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_login_holds_for_its_time_and_its_token() {
        let token = Token::new("0123456789abcdef".to_owned());
        let other = Token::new("fedcba9876543210".to_owned());
        let cookie = cookie(&token);
        let (pair, flags) = cookie.split_once("; ").unwrap();
        assert_eq!(flags, "Path=/; Max-Age=43200; HttpOnly; SameSite=Strict");
        let sent = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, value.parse().unwrap());
            headers
        };
        let now = now_seconds();
        let good = sent(&format!("a=b; {pair}; c"));
        assert!(is_in_at(&good, &token, now));
        assert!(!is_in_at(&good, &other, now));
        assert!(!is_in_at(&good, &token, now + LIFETIME_SECONDS + 2));
        let year = 365 * 86_400;
        assert!(is_in_at(&good, &token, now - 60), "a clock set right");
        assert!(!is_in_at(&good, &token, now - year), "a clock that jumped");
        assert!(!is_in_at(&good, &token, now + year), "a clock that jumped");
        let (name, value) = pair.split_once('=').unwrap();
        let (until, mac) = value.split_once('.').unwrap();
        for bad in [
            format!("{name}={}.{mac}", until.parse::<u64>().unwrap() - 1),
            format!("{name}={until}"),
            format!("{name}={until}.!"),
            format!("{name}="),
            format!("x{name}={value}"),
            String::new(),
        ] {
            assert!(!is_in_at(&sent(&bad), &token, now), "{bad}");
        }
    }
}
