//! Real servers for tests, private to a directory and ended with the value.

pub(crate) mod neo4j;
