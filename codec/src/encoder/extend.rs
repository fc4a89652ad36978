//! How far a source and the plain bytes agree: the byte-exact check behind every copy.

use crate::domain::Log;
use crate::history::reader::Reader;

/// How many bytes of `plain` equal those of `log` from `position` on.
pub(crate) fn forward(reader: &mut Reader<'_>, log: Log, mut position: u64, plain: &[u8]) -> usize {
    let mut rest = plain;
    while !rest.is_empty() {
        let Some(source) = reader.from(log, position) else {
            break;
        };
        let seen = source.len().min(rest.len());
        let equal = common_prefix(source, rest);
        rest = rest.get(equal..).unwrap_or_default();
        position += equal as u64;
        if equal < seen {
            break;
        }
    }
    plain.len() - rest.len()
}

/// How many bytes at the end of `plain` equal those of `log` before `position`.
pub(crate) fn backward(
    reader: &mut Reader<'_>,
    log: Log,
    mut position: u64,
    plain: &[u8],
) -> usize {
    let mut rest = plain;
    while !rest.is_empty() {
        let Some(source) = reader.up_to(log, position) else {
            break;
        };
        let seen = source.len().min(rest.len());
        let equal = common_suffix(source, rest);
        rest = rest.get(..rest.len() - equal).unwrap_or_default();
        position -= equal as u64;
        if equal < seen {
            break;
        }
    }
    plain.len() - rest.len()
}

/// Bytes compared at once while all is equal.
const WIDE: usize = 64;

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let wide = a
        .as_chunks::<WIDE>()
        .0
        .iter()
        .zip(b.as_chunks::<WIDE>().0)
        .take_while(|(a, b)| all_equal(a, b))
        .count()
        * WIDE;
    let (a, b) = (
        a.get(wide..).unwrap_or_default(),
        b.get(wide..).unwrap_or_default(),
    );
    let words = a
        .as_chunks::<8>()
        .0
        .iter()
        .zip(b.as_chunks::<8>().0)
        .take_while(|(a, b)| a == b)
        .count()
        * 8;
    let (a, b) = (
        a.get(words..).unwrap_or_default(),
        b.get(words..).unwrap_or_default(),
    );
    wide + words
        + a.iter()
            .zip(b)
            .take(WIDE)
            .take_while(|(a, b)| a == b)
            .count()
}

/// As `a == b`, but in a few vector instructions on the spot and not by a call of `memcmp`.
fn all_equal(a: &[u8; WIDE], b: &[u8; WIDE]) -> bool {
    a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let wide = a
        .as_rchunks::<WIDE>()
        .1
        .iter()
        .rev()
        .zip(b.as_rchunks::<WIDE>().1.iter().rev())
        .take_while(|(a, b)| all_equal(a, b))
        .count()
        * WIDE;
    let (a, b) = (
        a.get(..a.len() - wide).unwrap_or_default(),
        b.get(..b.len() - wide).unwrap_or_default(),
    );
    wide + a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take(WIDE)
        .take_while(|(a, b)| a == b)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agree_with_the_naive_count(shared in 0usize..300, a in proptest::collection::vec(any::<u8>(), 0..150), b in proptest::collection::vec(any::<u8>(), 0..150)) {
            let common: Vec<u8> = (0..shared).map(|at| at.to_le_bytes()[0]).collect();
            let (one, two) = ([common.clone(), a.clone()].concat(), [common.clone(), b.clone()].concat());
            let naive = one.iter().zip(&two).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(common_prefix(&one, &two), naive);
            let (one, two) = ([a, common.clone()].concat(), [b, common].concat());
            let naive = one.iter().rev().zip(two.iter().rev()).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(common_suffix(&one, &two), naive);
        }
    }
}
