//! Real servers for tests, private to a directory and ended with the value.

pub mod neo4j;
