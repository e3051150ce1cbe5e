//! Points of a log as people write them: PostgreSQL's positions, and transactions elsewhere.

use super::manifest::Engine;
use std::fmt;

/// Bits of a position's lower half.
const LOW_BITS: u32 = 32;

/// A position in PostgreSQL's log as it writes them: `0/16B3748`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Reads one.
    pub fn parse(text: &str) -> Option<Lsn> {
        let (high, low) = text.split_once('/')?;
        let part = |digits: &str| {
            let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        Some(Lsn(part(high)? << LOW_BITS | part(low)?))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> LOW_BITS, self.0 & ((1 << LOW_BITS) - 1))
    }
}

/// A point of a log in words: `transaction 17`, `position 0/3000060`.
pub fn named(engine: Engine, point: u64) -> String {
    match engine {
        Engine::Postgresql => format!("position {}", Lsn(point)),
        _ => format!("transaction {point}"),
    }
}

/// A point as PostgreSQL writes it; `None` for other databases.
pub fn position(engine: Engine, point: u64) -> Option<String> {
    (engine == Engine::Postgresql).then(|| Lsn(point).to_string())
}

/// The option of `restore` that ends with a point.
pub fn option(engine: Engine, point: u64) -> String {
    match engine {
        Engine::Postgresql => format!("--to-lsn {}", Lsn(point)),
        _ => format!("--to-tx {point}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn points_are_named_as_their_database_names_them() {
        assert_eq!(named(Engine::Postgresql, 0x3_0000_0060), "position 3/60");
        assert_eq!(option(Engine::Postgresql, 0x300_0060), "--to-lsn 0/3000060");
        assert_eq!((named(Engine::Neo4j, 7), option(Engine::Neo4j, 7)), ("transaction 7".into(), "--to-tx 7".into()));
    }

    proptest! {
        #[test]
        fn positions_read_back(position in any::<u64>()) {
            prop_assert_eq!(Lsn::parse(&Lsn(position).to_string()), Some(Lsn(position)));
        }

        #[test]
        fn what_is_no_position_is_refused(text in "[0-9a-gA-G/+ -]{0,20}") {
            if let Some(position) = Lsn::parse(&text) {
                prop_assert!(text.len() >= 3 && Lsn::parse(&position.to_string()) == Some(position));
            }
        }
    }
}
