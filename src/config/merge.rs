//! Several trees become one: a later one wins, key by key.

use super::value::{Node, Table};

/// Puts `later` over `base`. Tables are merged; anything else is replaced whole, lists too.
pub fn merge(base: &mut Table, later: Table) {
    for (key, node) in later.entries {
        match (base.entries.get_mut(&key), node) {
            (Some(Node::Table(old)), Node::Table(new)) => merge(old, new),
            (Some(slot), node) => *slot = node,
            (None, node) => {
                base.entries.insert(key, node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fragment::parse;
    use super::super::value::Value;
    use super::*;
    use std::path::Path;

    #[test]
    fn later_wins_key_by_key() {
        let mut base = parse(Path::new("/a"), "x = 1\n[t]\na = 1\nb = [1, 2]\n").expect("base");
        merge(&mut base, parse(Path::new("/b"), "[t]\nb = [3]\nc = 4\n").expect("later"));
        assert_eq!(base.entries["x"].origin().to_string(), "/a:1");
        let Node::Table(t) = &base.entries["t"] else { panic!("t is a table") };
        assert_eq!(t.entries["a"].origin().to_string(), "/a:3");
        assert_eq!(t.entries["c"].origin().to_string(), "/b:3");
        let Node::Leaf(Value::List(items), origin) = &t.entries["b"] else { panic!("b is a list") };
        assert_eq!((items.len(), origin.to_string().as_str()), (1, "/b:2"));
    }
}
